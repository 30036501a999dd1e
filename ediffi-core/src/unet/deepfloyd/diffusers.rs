//! Reading the configuration of a published U-Net in diffusers' format.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::network::{DeepFloyd, Switches, TEXT_TOKENS};
use crate::files::read_json;
use crate::multiple::gcd;
use crate::nn::{Activation, Norm};
use crate::published::unknown_key;
use crate::unet::io::Tokens;
use crate::unet::layout::Layout;
use crate::unet::parts::{ContextConfig, Dimensions, Level};
use crate::{Error, Result};

/// A U-Net as the `config.json` of diffusers' `UNet2DConditionModel` describes it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PublishedUNet {
    /// Its dimensions.
    pub network: DeepFloyd,
    /// Side in pixels of the square pictures that it was trained for.
    pub sample_size: i64,
}

/// A field that holds one value for all levels or a list of one for each.
#[derive(Deserialize)]
#[serde(untagged)]
enum PerLevel<T> {
    One(T),
    Each(Vec<T>),
}

impl<T: Copy> PerLevel<T> {
    fn get(&self, field: &'static str, levels: usize) -> Result<Vec<T>> {
        match self {
            Self::One(value) => Ok(vec![*value; levels]),
            Self::Each(values) if values.len() == levels => Ok(values.clone()),
            Self::Each(values) => wrong(field, format!("{} values for {levels} blocks", values.len())),
        }
    }
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

fn wrong<T>(field: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::NetworkConfig { field, reason: reason.into() })
}

/// What all DeepFloyd IF networks have in common, and no switch is for: a field, its default, and the one value that this
/// library computes.
fn fixed() -> [(&'static str, Value, Value); 15] {
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

fn activation(field: &'static str, name: &str) -> Result<Activation> {
    match name {
        "gelu" => Ok(Activation::Gelu),
        "silu" | "swish" => Ok(Activation::Silu),
        other => wrong(field, format!("`{other}` is not supported, only `gelu` and `silu`")),
    }
}

/// The one value that all levels share.
fn shared(field: &'static str, values: &PerLevel<i64>) -> Result<i64> {
    match values {
        PerLevel::One(value) => Ok(*value),
        PerLevel::Each(values) => match values.as_slice() {
            [first, rest @ ..] if rest.iter().all(|value| value == first) => Ok(*first),
            _ => wrong(field, "the blocks have different ones, which is not supported"),
        },
    }
}

impl PublishedUNet {
    /// Reads `config.json` of a folder that diffusers saved a DeepFloyd IF network in.
    ///
    /// # Errors
    /// [`Error::ReadFile`] and [`Error::Json`] naming the file; [`Error::NetworkConfig`] naming the first field that asks
    /// for something this library does not compute, block types of other models among them.
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
            PerLevel::Each(_) => false,
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
            head_channels: shared("attention_head_dim", &self.attention_head_dim)?,
            norm: Norm::Group(groups),
            embedding_width: self.time_embedding_dim.unwrap_or(4 * first),
            context: Some(ContextConfig {
                width: shared("cross_attention_dim", &self.cross_attention_dim)?,
                t5: Some(Tokens { tokens: TEXT_TOKENS, width: text_width }),
                clip_text: None,
                clip_image: None,
            }),
        };
        let network = DeepFloyd { dimensions, switches };
        network.validate()?;
        let Some(sample_size) = self.sample_size else { return wrong("sample_size", "it is missing") };
        Ok(PublishedUNet { network, sample_size })
    }

    fn check_fixed(&self) -> Result<()> {
        let fixed_names = fixed().map(|(field, ..)| field);
        if let Some(key) = unknown_key(&self.others, &[&fixed_names[..], &WITHOUT_EFFECT].concat()) {
            return wrong("config.json", format!("`{key}` is a field that this library does not know"));
        }
        for (field, found, why) in [
            ("in_channels", self.in_channels, "a network on pixels has 3, or 6 with a smaller picture"),
            ("out_channels", self.out_channels, "noise has 3, noise and variance have 6"),
        ] {
            if !matches!(found, 3 | 6) {
                return wrong(field, format!("{found}: {why}"));
            }
        }
        for (field, default, supported) in fixed() {
            let found = self.other(field).unwrap_or(&default);
            if found != &supported && (found.as_f64().is_none() || found.as_f64() != supported.as_f64()) {
                return wrong(field, format!("{found} is not supported, only {supported}"));
            }
        }
        Ok(())
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
        let kinds = ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"];
        let down = attention("down_block_types", &self.down_block_types, count, kinds)?;
        let kinds = ["ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D"];
        let mut up = attention("up_block_types", &self.up_block_types, count, kinds)?;
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

/// Which blocks have attention; those without are called `plain`, those with it `with`.
fn attention(field: &'static str, types: &[String], count: usize, [plain, with]: [&str; 2]) -> Result<Vec<bool>> {
    if types.len() != count {
        return wrong(field, format!("{} blocks for the {count} of block_out_channels", types.len()));
    }
    let has = |kind: &String| match kind.as_str() {
        kind if kind == plain => Ok(false),
        kind if kind == with => Ok(true),
        other => wrong(field, format!("`{other}` is not supported, only `{plain}` and `{with}`")),
    };
    types.iter().map(has).collect()
}
