//! The dimensions of any layout, as `config.json` beside the weights holds them.

use serde::{Deserialize, Serialize};

use super::adm::Adm;
use super::deepfloyd::{DeepFloyd, Switches};
use super::efficient::Efficient;
use super::io::Io;
use super::layout::{Body, Layout};
use super::parts::{ContextConfig, Dimensions, Level};
use crate::Result;
use crate::nn::Norm;
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
#[non_exhaustive]
pub enum UNetConfig {
    /// `adm`: eDiff-I's base.
    Adm(Adm),
    /// `efficient`: eDiff-I's super-resolution.
    Efficient(Efficient),
    /// `deepfloyd`: DeepFloyd IF's stages I and II.
    DeepFloyd(DeepFloyd),
}

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

/// The name of a layout, with what is its own.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Name {
    Adm,
    Efficient,
    DeepFloyd(Switches),
}

/// What stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    layout: Name,
    #[serde(default = "rgb", skip_serializing_if = "is_rgb")]
    picture_channels: i64,
    #[serde(default)]
    low_res: bool,
    #[serde(default = "one")]
    patch: i64,
    channels: i64,
    levels: Vec<Level>,
    head_channels: i64,
    norm: Norm,
    embedding_width: i64,
    #[serde(default)]
    context: Option<ContextConfig>,
}

fn one() -> i64 {
    1
}

fn rgb() -> i64 {
    3
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_rgb(channels: &i64) -> bool {
    *channels == rgb()
}

impl From<Stored> for UNetConfig {
    fn from(stored: Stored) -> Self {
        let Stored { layout, picture_channels, low_res, patch, channels, levels, .. } = stored;
        let Stored { head_channels, norm, embedding_width, context, .. } = stored;
        let dimensions = Dimensions {
            picture_channels,
            low_res,
            patch,
            channels,
            levels,
            head_channels,
            norm,
            embedding_width,
            context,
        };
        match layout {
            Name::Adm => Adm(dimensions).into(),
            Name::Efficient => Efficient(dimensions).into(),
            Name::DeepFloyd(switches) => DeepFloyd { dimensions, switches }.into(),
        }
    }
}

impl From<UNetConfig> for Stored {
    fn from(config: UNetConfig) -> Self {
        let (layout, dimensions) = match config {
            UNetConfig::Adm(Adm(dimensions)) => (Name::Adm, dimensions),
            UNetConfig::Efficient(Efficient(dimensions)) => (Name::Efficient, dimensions),
            UNetConfig::DeepFloyd(DeepFloyd { dimensions, switches }) => (Name::DeepFloyd(switches), dimensions),
        };
        let Dimensions { picture_channels, low_res, patch, channels, levels, .. } = dimensions;
        let Dimensions { head_channels, norm, embedding_width, context, .. } = dimensions;
        Self {
            layout,
            picture_channels,
            low_res,
            patch,
            channels,
            levels,
            head_channels,
            norm,
            embedding_width,
            context,
        }
    }
}
