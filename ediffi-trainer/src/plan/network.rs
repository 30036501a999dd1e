//! The dimensions of a stage's networks: in the plan, or in a file beside weights.

use std::fmt;
use std::path::PathBuf;

use ediffi_core::files::read_json;
use ediffi_core::unet::UNetConfig;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::Result;

/// Where the dimensions of a network stand.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Network {
    /// In a file in JSON, such as the `config.json` of a model folder's stage.
    File(PathBuf),
    /// In the plan itself, with the keys of that file.
    Here(Box<UNetConfig>),
}

impl Network {
    /// The dimensions.
    ///
    /// # Errors
    /// A file that cannot be read, or that holds no dimensions.
    pub(crate) fn dimensions(&self) -> Result<UNetConfig> {
        match self {
            Self::File(path) => Ok(read_json(path)?),
            Self::Here(config) => Ok((**config).clone()),
        }
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Network;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the dimensions of a network, or the path of a file that holds them")
    }

    fn visit_str<E: serde::de::Error>(self, path: &str) -> std::result::Result<Network, E> {
        Ok(Network::File(PathBuf::from(path)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Network, A::Error> {
        Ok(Network::Here(Box::new(UNetConfig::deserialize(MapAccessDeserializer::new(map))?)))
    }
}
