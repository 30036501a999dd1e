//! The dimensions of any layout, as `config.json` beside the weights holds them.

use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::adm::Adm;
use super::deepfloyd::DeepFloyd;
use super::efficient::Efficient;
use super::io::Io;
use super::layout::{Body, Layout};
use super::parts::DetailConfig;
use super::stable_diffusion::StableDiffusion;
use super::stored::{Entries, restored, store};
use super::unclip::UnClip;
use crate::weights::Scope;
use crate::{Error, Result};

/// Everything that names the layouts. A new one is a file that implements `Layout` and `Stored`, and a line in the list below.
macro_rules! layouts {
    ($($(#[$doc:meta])* $layout:ident = $name:literal,)*) => {
        /// The dimensions of a U-Net.
        ///
        /// In JSON, `layout` names the layout, or holds its name with what is the layout's own; the other keys are its
        /// dimensions. An unknown key is an error that names it.
        ///
        /// ```
        /// use ediffi_core::unet::UNetConfig;
        ///
        /// let config: UNetConfig = serde_json::from_str(
        ///     r#"{ "layout": "efficient", "low_res": true, "patch": 4, "channels": 32, "head_channels": 32,
        ///          "norm": { "group": 8 }, "embedding_width": 128,
        ///          "levels": [ { "multiplier": 1, "blocks": 2 }, { "multiplier": 2, "blocks": 2 } ] }"#,
        /// )?;
        /// assert_eq!(config.io().size_multiple, 8);
        /// # Ok::<(), serde_json::Error>(())
        /// ```
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum UNetConfig {
            $($(#[$doc])* $layout($layout),)*
        }

        impl UNetConfig {
            fn layout(&self) -> &dyn Layout {
                match self {
                    $(Self::$layout(layout) => layout,)*
                }
            }

            fn restore<'de, A: MapAccess<'de>>(
                name: &str,
                own: Value,
                keys: Entries<A>,
            ) -> std::result::Result<Self, A::Error> {
                match name {
                    $($name => restored::<$layout, A>(own, keys).map(Self::$layout),)*
                    other => Err(A::Error::unknown_variant(other, &[$($name),*])),
                }
            }
        }

        $(impl From<$layout> for UNetConfig {
            fn from(layout: $layout) -> Self {
                Self::$layout(layout)
            }
        })*

        impl Serialize for UNetConfig {
            fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                match self {
                    $(Self::$layout(layout) => store($name, layout, serializer),)*
                }
            }
        }
    };
}

layouts! {
    /// `adm`: eDiff-I's base.
    Adm = "adm",
    /// `efficient`: eDiff-I's super-resolution.
    Efficient = "efficient",
    /// `deepfloyd`: DeepFloyd IF's stages I and II.
    DeepFloyd = "deepfloyd",
    /// `stable-diffusion`: Stable Diffusion 1, 2, XL and its refiner.
    StableDiffusion = "stable-diffusion",
    /// `unclip`: Karlo's decoder and super-resolution.
    UnClip = "unclip",
}

impl UNetConfig {
    /// The inputs and outputs of the network.
    #[must_use]
    pub fn io(&self) -> Io {
        self.layout().io()
    }

    /// The same network with a detail head.
    ///
    /// # Errors
    /// [`Error::NetworkConfig`] for a layout that has none, or for a network that has one.
    pub fn with_detail(mut self, detail: DetailConfig) -> Result<Self> {
        let wrong = |reason: &str| Err(Error::NetworkConfig { field: "detail", reason: reason.to_owned() });
        let (Self::Adm(Adm(dimensions)) | Self::Efficient(Efficient(dimensions))) = &mut self else {
            return wrong("layouts of published networks have no detail head");
        };
        if dimensions.detail.is_some() {
            return wrong("the network has a detail head");
        }
        dimensions.detail = Some(detail);
        Ok(self)
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

impl<'de> Deserialize<'de> for UNetConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = UNetConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the dimensions of a U-Net")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<UNetConfig, A::Error> {
        let mut before = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            if key != "layout" {
                before.push((key, value));
                continue;
            }
            let named = match value {
                Value::String(name) => Some((name, Value::Null)),
                Value::Object(named) if named.len() == 1 => named.into_iter().next(),
                _ => None,
            };
            let wrong = || A::Error::custom("`layout` is a name, or one name with what is its own");
            let (name, own) = named.ok_or_else(wrong)?;
            return UNetConfig::restore(&name, own, Entries { before: before.into_iter(), value: None, after: map });
        }
        Err(A::Error::missing_field("layout"))
    }
}
