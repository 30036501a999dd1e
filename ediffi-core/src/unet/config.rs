//! The dimensions of any layout, as `config.json` beside the weights holds them.

use serde::de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::adm::Adm;
use super::deepfloyd::{DeepFloyd, Switches};
use super::efficient::Efficient;
use super::io::Io;
use super::layout::{Body, Layout};
use super::parts::Dimensions;
use crate::Result;
use crate::weights::Scope;

/// The dimensions of a U-Net.
///
/// In JSON, `layout` names the layout, or holds its name with what is the layout's own; the other keys are its
/// [`Dimensions`]. An unknown key is an error that names it.
///
/// ```
/// use ediffi_core::unet::UNetConfig;
///
/// let config: UNetConfig = serde_json::from_str(
///     r#"{ "layout": "efficient", "low_res": true, "patch": 4, "channels": 32, "head_channels": 32, "norm": { "group": 8 },
///          "embedding_width": 128, "levels": [ { "multiplier": 1, "blocks": 2 }, { "multiplier": 2, "blocks": 2 } ] }"#,
/// )?;
/// assert_eq!(config.io().size_multiple, 8);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum UNetConfig {
    /// `adm`: eDiff-I's base.
    Adm(Adm),
    /// `efficient`: eDiff-I's super-resolution.
    Efficient(Efficient),
    /// `deepfloyd`: DeepFloyd IF's stages I and II.
    DeepFloyd(DeepFloyd),
}

/// The names of the layouts in JSON.
const NAMES: [&str; 3] = ["adm", "efficient", "deepfloyd"];

impl UNetConfig {
    fn layout(&self) -> &dyn Layout {
        match self {
            Self::Adm(layout) => layout,
            Self::Efficient(layout) => layout,
            Self::DeepFloyd(layout) => layout,
        }
    }

    /// The inputs and outputs of the network.
    #[must_use]
    pub fn io(&self) -> Io {
        self.layout().io()
    }

    /// Checks that the dimensions make a network.
    ///
    /// # Errors
    /// [`Error::NetworkConfig`](crate::Error::NetworkConfig) naming the first field that does not fit.
    pub fn validate(&self) -> Result<()> {
        self.layout().validate()
    }
}

impl Layout for UNetConfig {
    fn validate(&self) -> Result<()> {
        self.layout().validate()
    }

    fn io(&self) -> Io {
        self.layout().io()
    }

    fn build(&self, scope: Scope<'_>) -> Result<Body> {
        self.layout().build(scope)
    }
}

impl From<Adm> for UNetConfig {
    fn from(layout: Adm) -> Self {
        Self::Adm(layout)
    }
}

impl From<Efficient> for UNetConfig {
    fn from(layout: Efficient) -> Self {
        Self::Efficient(layout)
    }
}

impl From<DeepFloyd> for UNetConfig {
    fn from(layout: DeepFloyd) -> Self {
        Self::DeepFloyd(layout)
    }
}

impl Serialize for UNetConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "lowercase")]
        enum Name<'a> {
            Adm,
            Efficient,
            DeepFloyd(&'a Switches),
        }
        #[derive(Serialize)]
        struct Stored<'a> {
            layout: Name<'a>,
            #[serde(flatten)]
            dimensions: &'a Dimensions,
        }
        let (layout, dimensions) = match self {
            Self::Adm(Adm(dimensions)) => (Name::Adm, dimensions),
            Self::Efficient(Efficient(dimensions)) => (Name::Efficient, dimensions),
            Self::DeepFloyd(DeepFloyd { dimensions, switches }) => (Name::DeepFloyd(switches), dimensions),
        };
        Stored { layout, dimensions }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for UNetConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(Stored)
    }
}

struct Stored;

impl<'de> Visitor<'de> for Stored {
    type Value = UNetConfig;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the dimensions of a U-Net")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<UNetConfig, A::Error> {
        let mut map = Map::deserialize(MapAccessDeserializer::new(map))?;
        let (name, own) = match map.remove("layout") {
            Some(Value::String(name)) => (name, None),
            Some(Value::Object(own)) if own.len() == 1 => {
                own.into_iter().next().map_or_else(Default::default, |(name, own)| (name, Some(own)))
            }
            Some(_) => return Err(A::Error::custom("`layout` has to be a name, or a name with its switches")),
            None => return Err(A::Error::missing_field("layout")),
        };
        let dimensions: Dimensions = serde_json::from_value(Value::Object(map)).map_err(A::Error::custom)?;
        match (name.as_str(), own) {
            ("adm", None) => Ok(Adm(dimensions).into()),
            ("efficient", None) => Ok(Efficient(dimensions).into()),
            ("deepfloyd", Some(own)) => {
                let switches: Switches = serde_json::from_value(own).map_err(A::Error::custom)?;
                Ok(DeepFloyd { dimensions, switches }.into())
            }
            ("deepfloyd", None) => Err(A::Error::custom("layout `deepfloyd` needs its switches")),
            ("adm" | "efficient", Some(_)) => Err(A::Error::custom(format!("layout `{name}` has no switches"))),
            _ => Err(A::Error::unknown_variant(&name, &NAMES)),
        }
    }
}
