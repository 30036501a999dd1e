//! Reading the configuration of a published U-Net in diffusers' format.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::network::{DeepFloyd, Switches, TEXT_TOKENS};
use crate::Result;
use crate::files::read_json;
use crate::multiple::gcd;
use crate::nn::Norm;
use crate::published_keys::{Fixed, PerLevel, activation, check_left, kinds, wrong};
use crate::unet::io::Tokens;
use crate::unet::layout::Layout;
use crate::unet::parts::{ContextConfig, Dimensions, Level};

/// A U-Net as the `config.json` of diffusers' `UNet2DConditionModel` describes it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PublishedUNet {
    /// Its dimensions.
    pub network: DeepFloyd,
    /// Side in pixels of the square pictures that it was trained for.
    pub sample_size: i64,
}

/// The fields that networks differ in. Configurations of published models were written by many versions of diffusers: a
/// field that one leaves out has the default it had when fields were added. Another field has to be one of [`fixed`] or of
/// [`WITHOUT_EFFECT`].
#[derive(Deserialize)]
#[serde(default)]
struct Published {
    sample_size: Option<i64>,
    in_channels: i64,
    out_channels: i64,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    only_cross_attention: PerLevel<bool>,
    mid_block_only_cross_attention: Option<bool>,
    block_out_channels: Vec<i64>,
    layers_per_block: PerLevel<usize>,
    mid_block_scale_factor: f64,
    act_fn: String,
    norm_num_groups: Option<i64>,
    norm_eps: f64,
    cross_attention_dim: PerLevel<i64>,
    encoder_hid_dim: Option<i64>,
    attention_head_dim: PerLevel<i64>,
    addition_embed_type_num_heads: i64,
    resnet_skip_time_act: bool,
    resnet_out_scale_factor: f64,
    time_embedding_dim: Option<i64>,
    time_embedding_act_fn: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// The defaults of `UNet2DConditionModel`; block types and channels have to be there.
impl Default for Published {
    fn default() -> Self {
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            down_block_types: Vec::new(),
            up_block_types: Vec::new(),
            only_cross_attention: PerLevel::One(false),
            mid_block_only_cross_attention: None,
            block_out_channels: Vec::new(),
            layers_per_block: PerLevel::One(2),
            mid_block_scale_factor: 1.0,
            act_fn: "silu".to_owned(),
            norm_num_groups: Some(32),
            norm_eps: 1e-5,
            cross_attention_dim: PerLevel::One(1280),
            encoder_hid_dim: None,
            attention_head_dim: PerLevel::One(8),
            addition_embed_type_num_heads: 64,
            resnet_skip_time_act: false,
            resnet_out_scale_factor: 1.0,
            time_embedding_dim: None,
            time_embedding_act_fn: None,
            others: Map::new(),
        }
    }
}

/// What all DeepFloyd IF networks have in common, and no switch is for: a field, its default, and the one value that this
/// library computes.
fn fixed() -> [Fixed; 15] {
    [
        ("center_input_sample", json!(false), json!(false)),
        ("flip_sin_to_cos", json!(true), json!(true)),
        ("freq_shift", json!(0), json!(0)),
        ("mid_block_type", json!("UNetMidBlock2DCrossAttn"), json!("UNetMidBlock2DSimpleCrossAttn")),
        ("cross_attention_norm", json!(null), json!("group_norm")),
        // Early versions had no such field: a width of the text implied a projection.
        ("encoder_hid_dim_type", json!("text_proj"), json!("text_proj")),
        ("addition_embed_type", json!(null), json!("text")),
        ("class_embed_type", json!("timestep"), json!("timestep")),
        ("class_embeddings_concat", json!(false), json!(false)),
        ("resnet_time_scale_shift", json!("default"), json!("scale_shift")),
        ("time_embedding_type", json!("positional"), json!("positional")),
        ("timestep_post_act", json!(null), json!(null)),
        ("time_cond_proj_dim", json!(null), json!(null)),
        ("conv_in_kernel", json!(3), json!(3)),
        ("conv_out_kernel", json!(3), json!(3)),
    ]
}

/// Fields that change nothing in such a network: where it came from, what only training sees, and what only other blocks have.
const WITHOUT_EFFECT: [&str; 13] = [
    "_class_name",
    "_diffusers_version",
    "_name_or_path",
    "attention_type",
    "decay",
    "downsample_padding",
    "dropout",
    "dual_cross_attention",
    "num_class_embeds",
    "projection_class_embeddings_input_dim",
    "transformer_layers_per_block",
    "upcast_attention",
    "use_linear_projection",
];

impl PublishedUNet {
    /// Reads `config.json` of a folder that diffusers saved a DeepFloyd IF network in.
    ///
    /// # Errors
    /// [`Error::ReadFile`](crate::Error::ReadFile) and [`Error::Json`](crate::Error::Json) naming the file;
    /// [`Error::NetworkConfig`](crate::Error::NetworkConfig) naming the first field that asks for something this library does not compute, block types of other models among them.
    pub fn read(path: &Path) -> Result<Self> {
        read_json::<Published>(path)?.convert()
    }
}

impl Published {
    fn convert(&self) -> Result<PublishedUNet> {
        self.check_fixed()?;
        let levels = self.levels()?;
        let Some(&first) = self.block_out_channels.first() else { return wrong("block_out_channels", "it is missing") };
        let all_cross = match self.only_cross_attention {
            PerLevel::One(all) => all,
            PerLevel::Each(_) | PerLevel::Other(_) => false,
        };
        // An embedding that blocks activate is activated once, before the first of them.
        let embedding_activation = match (&self.time_embedding_act_fn, self.resnet_skip_time_act) {
            (None, false) => activation("act_fn", &self.act_fn)?,
            (Some(name), true) => activation("time_embedding_act_fn", name)?,
            _ => return wrong("resnet_skip_time_act", "it has to be true just where there is a time_embedding_act_fn"),
        };
        let switches = Switches {
            variance: self.out_channels == 6,
            noise_level: self.other("class_embed_type").is_some(),
            activation: activation("act_fn", &self.act_fn)?,
            embedding_activation,
            norm_eps: self.norm_eps,
            residual_scale: self.resnet_out_scale_factor,
            middle_scale: self.mid_block_scale_factor,
            middle_self_attention: !self.mid_block_only_cross_attention.unwrap_or(all_cross),
            text_heads: self.addition_embed_type_num_heads,
        };
        let Some(text_width) = self.encoder_hid_dim else { return wrong("encoder_hid_dim", "it is missing") };
        let Some(groups) = self.norm_num_groups else { return wrong("norm_num_groups", "it is missing") };
        let dimensions = Dimensions {
            picture_channels: 3,
            low_res: self.in_channels == 6,
            patch: 1,
            channels: self.unit(),
            levels,
            head_channels: self.attention_head_dim.shared("attention_head_dim")?,
            norm: Norm::Group(groups),
            embedding_width: self.time_embedding_dim.unwrap_or(4 * first),
            context: Some(ContextConfig {
                width: self.cross_attention_dim.shared("cross_attention_dim")?,
                t5: Some(Tokens { tokens: TEXT_TOKENS, width: text_width }),
                clip_text: None,
                clip_image: None,
            }),
            detail: None,
        };
        let network = DeepFloyd { dimensions, switches };
        network.validate()?;
        let Some(sample_size) = self.sample_size else { return wrong("sample_size", "it is missing") };
        Ok(PublishedUNet { network, sample_size })
    }

    fn check_fixed(&self) -> Result<()> {
        for (field, found, why) in [
            ("in_channels", self.in_channels, "a network on pixels has 3, or 6 with a smaller picture"),
            ("out_channels", self.out_channels, "noise has 3, noise and variance have 6"),
        ] {
            if !matches!(found, 3 | 6) {
                return wrong(field, format!("{found}: {why}"));
            }
        }
        check_left(&self.others, &fixed(), &WITHOUT_EFFECT)
    }

    /// A field that is there and not null.
    fn other(&self, field: &str) -> Option<&Value> {
        self.others.get(field).filter(|value| !value.is_null())
    }

    /// The greatest number that divides the channels of all levels.
    fn unit(&self) -> i64 {
        self.block_out_channels.iter().fold(0, |unit, &channels| gcd(unit, channels))
    }

    fn levels(&self) -> Result<Vec<Level>> {
        let (unit, count) = (self.unit().max(1), self.block_out_channels.len());
        let blocks = self.layers_per_block.get("layers_per_block", count)?;
        let only_cross = self.only_cross_attention.get("only_cross_attention", count)?;
        let names = ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"];
        let down = kinds("down_block_types", &self.down_block_types, count, names)?;
        let names = ["ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D"];
        let mut up = kinds("up_block_types", &self.up_block_types, count, names)?;
        up.reverse();
        if up != down {
            return wrong("up_block_types", "the way up has attention on other levels than the way down");
        }
        let each = self.block_out_channels.iter().zip(blocks).zip(down.into_iter().zip(only_cross));
        Ok(each
            .map(|((&channels, blocks), (attention, only_cross))| Level {
                multiplier: channels / unit,
                blocks,
                self_attention: attention && !only_cross,
                cross_attention: attention,
            })
            .collect())
    }
}
