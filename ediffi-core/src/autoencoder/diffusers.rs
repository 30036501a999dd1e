//! Reading the configuration of a published autoencoder in diffusers' format.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::config::AutoencoderConfig;
use crate::Result;
use crate::files::read_json;
use crate::published_keys::{Fixed, activation, check_left, wrong};

/// The fields that autoencoders differ in; one that a file leaves out has diffusers' default.
#[derive(Deserialize)]
#[serde(default)]
struct Published {
    in_channels: i64,
    out_channels: i64,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    block_out_channels: Vec<i64>,
    layers_per_block: usize,
    act_fn: String,
    latent_channels: i64,
    norm_num_groups: i64,
    sample_size: i64,
    scaling_factor: f64,
    shift_factor: Option<f64>,
    force_upcast: bool,
    use_quant_conv: bool,
    use_post_quant_conv: bool,
    mid_block_add_attention: bool,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// The defaults of `AutoencoderKL`.
impl Default for Published {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec![DOWN.to_owned()],
            up_block_types: vec![UP.to_owned()],
            block_out_channels: vec![64],
            layers_per_block: 1,
            act_fn: "silu".to_owned(),
            latent_channels: 4,
            norm_num_groups: 32,
            sample_size: 32,
            scaling_factor: 0.18215,
            shift_factor: None,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
            others: Map::new(),
        }
    }
}

/// The one kind of blocks of each way.
const DOWN: &str = "DownEncoderBlock2D";
const UP: &str = "UpDecoderBlock2D";

/// Fields with one value that this library computes. A mean and a standard deviation for each channel of the latents stand in the place of
/// one scale, and are not read.
fn fixed() -> [Fixed; 3] {
    [
        ("_class_name", json!("AutoencoderKL"), json!("AutoencoderKL")),
        ("latents_mean", json!(null), json!(null)),
        ("latents_std", json!(null), json!(null)),
    ]
}

/// Fields that say where the file came from.
const WITHOUT_EFFECT: [&str; 2] = ["_diffusers_version", "_name_or_path"];

impl AutoencoderConfig {
    /// Reads `config.json` of a folder that diffusers saved an `AutoencoderKL` in.
    ///
    /// # Errors
    /// [`Error::ReadFile`](crate::Error::ReadFile) and [`Error::Json`](crate::Error::Json) naming the file;
    /// [`Error::NetworkConfig`](crate::Error::NetworkConfig) naming the first field that asks for something this library does not compute,
    /// another kind of autoencoder among them.
    pub fn read_published(path: &Path) -> Result<Self> {
        read_json::<Published>(path)?.convert()
    }
}

impl Published {
    fn convert(self) -> Result<AutoencoderConfig> {
        check_left(&self.others, &fixed(), &WITHOUT_EFFECT)?;
        let levels = self.block_out_channels.len();
        for (field, types, only) in
            [("down_block_types", &self.down_block_types, DOWN), ("up_block_types", &self.up_block_types, UP)]
        {
            if types.len() != levels {
                return wrong(field, format!("{} blocks for the {levels} of block_out_channels", types.len()));
            }
            if let Some(other) = types.iter().find(|kind| *kind != only) {
                return wrong(field, format!("`{other}` is not supported, only `{only}`"));
            }
        }
        if self.out_channels != self.in_channels {
            return wrong("out_channels", format!("{}, where in_channels is {}", self.out_channels, self.in_channels));
        }
        let config = AutoencoderConfig {
            picture_channels: self.in_channels,
            latent_channels: self.latent_channels,
            channels: self.block_out_channels,
            blocks: self.layers_per_block,
            groups: self.norm_num_groups,
            activation: activation("act_fn", &self.act_fn)?,
            middle_attention: self.mid_block_add_attention,
            quant_conv: self.use_quant_conv,
            post_quant_conv: self.use_post_quant_conv,
            scaling_factor: self.scaling_factor,
            shift_factor: self.shift_factor.unwrap_or(0.0),
            sample_size: self.sample_size,
            force_upcast: self.force_upcast,
        };
        config.validate()?;
        Ok(config)
    }
}
