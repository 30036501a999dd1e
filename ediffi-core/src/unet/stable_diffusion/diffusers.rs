//! Reading the configuration of a published U-Net of Stable Diffusion in diffusers' format.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::network::{LatentLevel, StableDiffusion, TEXT_TOKENS, Transformers};
use crate::Result;
use crate::files::read_json;
use crate::published_keys::{Fixed, PerLevel, activation, check_left, kinds, wrong};
use crate::unet::io::ClipText;
use crate::unet::layout::Layout;
use crate::unet::parts::Micro;

/// A U-Net of Stable Diffusion as the `config.json` of diffusers' `UNet2DConditionModel` describes it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PublishedStableDiffusion {
    /// Its dimensions.
    pub network: StableDiffusion,
    /// Side of the square latents that it was trained for; that of the pictures is, for all published ones, eight times as long.
    pub sample_size: i64,
}

/// The fields that networks differ in; one that a file leaves out has diffusers' default.
#[derive(Deserialize)]
#[serde(default)]
struct Published {
    sample_size: Option<i64>,
    in_channels: i64,
    out_channels: i64,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    only_cross_attention: Option<PerLevel<bool>>,
    block_out_channels: Vec<i64>,
    layers_per_block: PerLevel<usize>,
    mid_block_scale_factor: f64,
    act_fn: String,
    norm_num_groups: Option<i64>,
    norm_eps: f64,
    cross_attention_dim: PerLevel<i64>,
    transformer_layers_per_block: PerLevel<usize>,
    attention_head_dim: PerLevel<i64>,
    use_linear_projection: bool,
    addition_embed_type: Option<String>,
    addition_time_embed_dim: Option<i64>,
    projection_class_embeddings_input_dim: Option<i64>,
    upcast_attention: Option<bool>,
    time_embedding_dim: Option<i64>,
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
            only_cross_attention: None,
            block_out_channels: Vec::new(),
            layers_per_block: PerLevel::One(2),
            mid_block_scale_factor: 1.0,
            act_fn: "silu".to_owned(),
            norm_num_groups: Some(32),
            norm_eps: 1e-5,
            cross_attention_dim: PerLevel::One(1280),
            transformer_layers_per_block: PerLevel::One(1),
            attention_head_dim: PerLevel::One(8),
            use_linear_projection: false,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            projection_class_embeddings_input_dim: None,
            upcast_attention: None,
            time_embedding_dim: None,
            others: Map::new(),
        }
    }
}

/// What all networks of Stable Diffusion have in common: a field, its default, and the one value that this library computes.
fn fixed() -> [Fixed; 24] {
    [
        ("_class_name", json!("UNet2DConditionModel"), json!("UNet2DConditionModel")),
        ("attention_type", json!("default"), json!("default")),
        ("center_input_sample", json!(false), json!(false)),
        ("class_embed_type", json!(null), json!(null)),
        ("class_embeddings_concat", json!(false), json!(false)),
        ("conv_in_kernel", json!(3), json!(3)),
        ("conv_out_kernel", json!(3), json!(3)),
        ("downsample_padding", json!(1), json!(1)),
        ("dual_cross_attention", json!(false), json!(false)),
        ("encoder_hid_dim", json!(null), json!(null)),
        ("encoder_hid_dim_type", json!(null), json!(null)),
        ("flip_sin_to_cos", json!(true), json!(true)),
        ("freq_shift", json!(0), json!(0)),
        ("mid_block_type", json!("UNetMidBlock2DCrossAttn"), json!("UNetMidBlock2DCrossAttn")),
        // `attention_head_dim` is the number of heads, and there is no other name for it.
        ("num_attention_heads", json!(null), json!(null)),
        ("num_class_embeds", json!(null), json!(null)),
        ("resnet_out_scale_factor", json!(1.0), json!(1.0)),
        ("resnet_skip_time_act", json!(false), json!(false)),
        ("resnet_time_scale_shift", json!("default"), json!("default")),
        ("reverse_transformer_layers_per_block", json!(null), json!(null)),
        ("time_cond_proj_dim", json!(null), json!(null)),
        ("time_embedding_act_fn", json!(null), json!(null)),
        ("time_embedding_type", json!("positional"), json!("positional")),
        ("timestep_post_act", json!(null), json!(null)),
    ]
}

/// Fields that change nothing in such a network: where it came from, what only training sees (a moving average of the weights leaves keys,
/// too), and what only other blocks have.
const WITHOUT_EFFECT: [&str; 13] = [
    "_diffusers_version",
    "_name_or_path",
    "addition_embed_type_num_heads",
    "cross_attention_norm",
    "decay",
    "dropout",
    "inv_gamma",
    "mid_block_only_cross_attention",
    "min_decay",
    "optimization_step",
    "power",
    "update_after_step",
    "use_ema_warmup",
];

impl PublishedStableDiffusion {
    /// Reads `config.json` of a folder that diffusers saved a network of Stable Diffusion 1, 2, XL or of its refiner in.
    ///
    /// `pooled` is the width of the pooled text, which the file does not say: `projection_dim` of the pipeline's `text_encoder_2`, 1280 for
    /// the published ones. Networks of Stable Diffusion 1 and 2 take no pooled text, whatever it is.
    ///
    /// # Errors
    /// [`Error::ReadFile`](crate::Error::ReadFile) and [`Error::Json`](crate::Error::Json) naming the file;
    /// [`Error::NetworkConfig`](crate::Error::NetworkConfig) naming the first field that asks for something this library does not compute,
    /// or that does not fit `pooled`.
    pub fn read(path: &Path, pooled: Option<i64>) -> Result<Self> {
        read_json::<Published>(path)?.convert(pooled)
    }
}

impl Published {
    fn convert(&self, pooled: Option<i64>) -> Result<PublishedStableDiffusion> {
        self.check()?;
        let levels = self.levels()?;
        let Some(&first) = self.block_out_channels.first() else { return wrong("block_out_channels", "it is missing") };
        let Some(groups) = self.norm_num_groups else { return wrong("norm_num_groups", "it is missing") };
        let Some(sample_size) = self.sample_size else { return wrong("sample_size", "it is missing") };
        let micro = self.micro(pooled)?;
        let network = StableDiffusion {
            latent_channels: self.in_channels,
            middle: self.transformers(levels.len().saturating_sub(1), levels.len())?,
            levels,
            groups,
            norm_eps: self.norm_eps,
            activation: activation("act_fn", &self.act_fn)?,
            embedding_width: self.time_embedding_dim.unwrap_or(first.saturating_mul(4)),
            text: ClipText {
                tokens: TEXT_TOKENS,
                width: self.cross_attention_dim.shared("cross_attention_dim")?,
                pooled: pooled.filter(|_| micro.is_some()),
            },
            micro,
            beside: None,
            linear_projection: self.use_linear_projection,
            upcast_attention: self.upcast_attention.unwrap_or(false),
            middle_scale: self.mid_block_scale_factor,
        };
        network.validate()?;
        Ok(PublishedStableDiffusion { network, sample_size })
    }

    fn check(&self) -> Result<()> {
        check_left(&self.others, &fixed(), &WITHOUT_EFFECT)?;
        // As a value of its own, null is no middle at all.
        if self.others.get("mid_block_type").is_some_and(Value::is_null) {
            return wrong("mid_block_type", "null: a network without a middle is not supported");
        }
        if self.in_channels != self.out_channels {
            let why = "one for inpainting has 9 of 4, one that edits by words 8, one that sees depth 5";
            let (inputs, outputs) = (self.in_channels, self.out_channels);
            return wrong(
                "in_channels",
                format!("{inputs} where out_channels is {outputs}, which is not supported: {why}"),
            );
        }
        if let Some(only_cross) = &self.only_cross_attention {
            let field = "only_cross_attention";
            if only_cross.get(field, self.block_out_channels.len())?.contains(&true) {
                return wrong(field, "true is not supported, only false");
            }
        }
        Ok(())
    }

    /// The transformers of a level.
    fn transformers(&self, level: usize, count: usize) -> Result<Transformers> {
        let heads = self.attention_head_dim.get("attention_head_dim", count)?;
        let depths = self.transformer_layers_per_block.get("transformer_layers_per_block", count)?;
        match (heads.get(level), depths.get(level)) {
            (Some(&heads), Some(&depth)) => Ok(Transformers { heads, depth }),
            _ => wrong("block_out_channels", "it is missing"),
        }
    }

    fn levels(&self) -> Result<Vec<LatentLevel>> {
        let count = self.block_out_channels.len();
        let blocks = self.layers_per_block.get("layers_per_block", count)?;
        let names = ["DownBlock2D", "CrossAttnDownBlock2D"];
        let down = kinds("down_block_types", &self.down_block_types, count, names)?;
        let mut up = kinds("up_block_types", &self.up_block_types, count, ["UpBlock2D", "CrossAttnUpBlock2D"])?;
        up.reverse();
        if up != down {
            return wrong("up_block_types", "the way up has attention on other levels than the way down");
        }
        let each = self.block_out_channels.iter().zip(blocks).zip(down).enumerate();
        each.map(|(level, ((&channels, blocks), attends))| {
            let transformers = attends.then(|| self.transformers(level, count)).transpose()?;
            Ok(LatentLevel { channels, blocks, transformers })
        })
        .collect()
    }

    /// What the network takes beside the text: the channels that its embedding has for more than the pooled text.
    fn micro(&self, pooled: Option<i64>) -> Result<Option<Micro>> {
        match self.addition_embed_type.as_deref() {
            None => return Ok(None),
            Some("text_time") => {}
            Some(other) => {
                return wrong("addition_embed_type", format!("`{other}` is not supported, only `text_time`"));
            }
        }
        let field = "projection_class_embeddings_input_dim";
        let Some(inputs) = self.projection_class_embeddings_input_dim else { return wrong(field, "it is missing") };
        let Some(width) = self.addition_time_embed_dim else {
            return wrong("addition_time_embed_dim", "it is missing");
        };
        let Some(pooled) = pooled else {
            return wrong("addition_embed_type", "`text_time` takes a pooled text, and no encoder gives one");
        };
        let numbers = inputs.saturating_sub(pooled);
        if width < 1 || numbers < 1 || numbers % width != 0 {
            let reason = format!("{inputs} is not {pooled} of the pooled text and {width} for each of some numbers");
            return wrong(field, reason);
        }
        Ok(Some(Micro { numbers: numbers / width, width }))
    }
}
