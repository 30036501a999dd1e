//! Reading the configurations of unCLIP's published networks in diffusers' format.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::network::{UnClip, UnClipSwitches};
use crate::Result;
use crate::files::read_json;
use crate::multiple::gcd;
use crate::nn::Norm;
use crate::published_keys::{Fixed, PerLevel, activation, check_left, kinds, wrong};
use crate::unet::io::ClipText;
use crate::unet::layout::Layout;
use crate::unet::parts::{ContextConfig, Dimensions, Level, Modulation};

/// One of unCLIP's networks as diffusers describes it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PublishedUnClip {
    /// Its dimensions.
    pub network: UnClip,
    /// Side in pixels of the square pictures that it was trained for, where the file says it.
    pub sample_size: Option<i64>,
}

/// The fields that networks differ in; one that a file leaves out has diffusers' default.
#[derive(Deserialize)]
#[serde(default)]
struct Published {
    sample_size: Option<i64>,
    in_channels: Option<i64>,
    out_channels: Option<i64>,
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
    attention_head_dim: PerLevel<i64>,
    resnet_time_scale_shift: String,
    resnet_out_scale_factor: f64,
    time_embedding_dim: Option<i64>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// The defaults of both classes; block types and channels have to be there.
impl Default for Published {
    fn default() -> Self {
        Self {
            sample_size: None,
            in_channels: None,
            out_channels: None,
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
            attention_head_dim: PerLevel::One(8),
            resnet_time_scale_shift: "default".to_owned(),
            resnet_out_scale_factor: 1.0,
            time_embedding_dim: None,
            others: Map::new(),
        }
    }
}

/// What both classes have: a field, its default, and the one value that this library computes.
fn fixed() -> Vec<Fixed> {
    vec![
        ("center_input_sample", json!(false), json!(false)),
        ("flip_sin_to_cos", json!(true), json!(true)),
        ("freq_shift", json!(0), json!(0)),
        ("time_embedding_type", json!("positional"), json!("positional")),
    ]
}

/// What decoders have in common.
fn fixed_of_decoders() -> Vec<Fixed> {
    let own = [
        ("_class_name", json!("UNet2DConditionModel"), json!("UNet2DConditionModel")),
        ("addition_embed_type", json!(null), json!(null)),
        ("class_embed_type", json!(null), json!("identity")),
        ("class_embeddings_concat", json!(false), json!(false)),
        ("conv_in_kernel", json!(3), json!(3)),
        ("conv_out_kernel", json!(3), json!(3)),
        ("cross_attention_norm", json!(null), json!(null)),
        ("encoder_hid_dim", json!(null), json!(null)),
        ("encoder_hid_dim_type", json!(null), json!(null)),
        ("mid_block_type", json!("UNetMidBlock2DCrossAttn"), json!("UNetMidBlock2DSimpleCrossAttn")),
        ("resnet_skip_time_act", json!(false), json!(false)),
        ("time_cond_proj_dim", json!(null), json!(null)),
        ("time_embedding_act_fn", json!(null), json!(null)),
        ("timestep_post_act", json!(null), json!(null)),
    ];
    fixed().into_iter().chain(own).collect()
}

/// What networks of super-resolution have in common. Their noise embedding and their end have SiLU whatever `act_fn` says.
fn fixed_of_enlargers() -> Vec<Fixed> {
    let own = [
        ("_class_name", json!("UNet2DModel"), json!("UNet2DModel")),
        ("add_attention", json!(true), json!(false)),
        ("class_embed_type", json!(null), json!(null)),
        ("mid_block_type", json!("UNetMidBlock2D"), json!("UNetMidBlock2D")),
        ("num_class_embeds", json!(null), json!(null)),
    ];
    fixed().into_iter().chain(own).collect()
}

/// Fields that change nothing in such a network: where it came from, what only training sees, and what only other blocks have.
const WITHOUT_EFFECT: [&str; 19] = [
    "_class_name",
    "_diffusers_version",
    "_name_or_path",
    "addition_embed_type_num_heads",
    "addition_time_embed_dim",
    "attention_type",
    "attn_norm_num_groups",
    "downsample_padding",
    "downsample_type",
    "dropout",
    "dual_cross_attention",
    "num_class_embeds",
    "num_train_timesteps",
    "projection_class_embeddings_input_dim",
    "reverse_transformer_layers_per_block",
    "transformer_layers_per_block",
    "upcast_attention",
    "upsample_type",
    "use_linear_projection",
];

/// `UnCLIPTextProjModel`.
#[derive(Deserialize)]
struct TextProjection {
    #[serde(default = "four")]
    clip_extra_context_tokens: i64,
    #[serde(default = "large")]
    clip_embeddings_dim: i64,
    time_embed_dim: i64,
    cross_attention_dim: i64,
    #[serde(flatten)]
    others: Map<String, Value>,
}

fn four() -> i64 {
    4
}

fn large() -> i64 {
    768
}

impl TextProjection {
    fn check(&self, width: i64, embedding_width: i64) -> Result<()> {
        let fixed = [("_class_name", json!("UnCLIPTextProjModel"), json!("UnCLIPTextProjModel"))];
        check_left(&self.others, &fixed, &["_diffusers_version", "_name_or_path"])?;
        for (field, found, taken) in [
            ("cross_attention_dim", self.cross_attention_dim, width),
            ("time_embed_dim", self.time_embed_dim, embedding_width),
        ] {
            if found != taken {
                return wrong(field, format!("text_proj gives a width of {found}, the decoder takes {taken}"));
            }
        }
        Ok(())
    }
}

impl PublishedUnClip {
    /// Reads the `config.json` of a decoder, and that of its `text_proj`. Texts have `tokens` tokens.
    ///
    /// # Errors
    /// [`Error::ReadFile`](crate::Error::ReadFile) and [`Error::Json`](crate::Error::Json) naming the file;
    /// [`Error::NetworkConfig`](crate::Error::NetworkConfig) naming the first field that asks for something this library does not compute,
    /// or in which the two do not fit.
    pub fn decoder(decoder: &Path, text_proj: &Path, tokens: i64) -> Result<Self> {
        let published: Published = read_json(decoder)?;
        let projection: TextProjection = read_json(text_proj)?;
        published.check(&fixed_of_decoders())?;
        published.channels("in_channels", published.in_channels.unwrap_or(4), &[3])?;
        let width = published.cross_attention_dim.shared("cross_attention_dim")?;
        projection.check(width, published.embedding_width())?;
        let clip = projection.clip_embeddings_dim;
        let context = ContextConfig {
            width,
            t5: None,
            clip_text: Some(ClipText { tokens, width: clip, pooled: Some(clip) }),
            clip_image: Some(clip),
        };
        published.convert(Some(context), projection.clip_extra_context_tokens)
    }

    /// Reads the `config.json` of a network of super-resolution.
    ///
    /// # Errors
    /// As [`decoder`](Self::decoder).
    pub fn enlarger(path: &Path) -> Result<Self> {
        let published: Published = read_json(path)?;
        published.check(&fixed_of_enlargers())?;
        published.channels("in_channels", published.in_channels.unwrap_or(3), &[6])?;
        if !matches!(published.act_fn.as_str(), "silu" | "swish") {
            return wrong("act_fn", format!("`{}` is not supported, only `silu`", published.act_fn));
        }
        published.convert(None, 0)
    }
}

impl Published {
    fn check(&self, fixed: &[Fixed]) -> Result<()> {
        check_left(&self.others, fixed, &WITHOUT_EFFECT)?;
        // As a value of its own, null is no middle at all.
        if self.others.get("mid_block_type").is_some_and(Value::is_null) {
            return wrong("mid_block_type", "null: a network without a middle is not supported");
        }
        if self.block_out_channels.is_empty() {
            return wrong("block_out_channels", "it is missing");
        }
        Ok(())
    }

    fn channels(&self, field: &'static str, found: i64, supported: &[i64]) -> Result<()> {
        if supported.contains(&found) {
            return Ok(());
        }
        wrong(field, format!("{found}: a decoder sees 3, super-resolution 6, noise has 3, noise and variance have 6"))
    }

    fn embedding_width(&self) -> i64 {
        let first = self.block_out_channels.first().copied().unwrap_or(0);
        self.time_embedding_dim.unwrap_or(first.saturating_mul(4))
    }

    fn convert(&self, context: Option<ContextConfig>, image_tokens: i64) -> Result<PublishedUnClip> {
        let out_channels = self.out_channels.unwrap_or(if context.is_some() { 4 } else { 3 });
        self.channels("out_channels", out_channels, &[3, 6])?;
        let Some(groups) = self.norm_num_groups else { return wrong("norm_num_groups", "it is missing") };
        let levels = self.levels(context.is_some())?;
        let all_cross = match self.only_cross_attention {
            PerLevel::One(all) => all,
            PerLevel::Each(_) | PerLevel::Other(_) => false,
        };
        let modulation = match self.resnet_time_scale_shift.as_str() {
            "default" => Modulation::Add,
            "scale_shift" => Modulation::ScaleShift,
            other => {
                let reason = format!("`{other}` is not supported, only `default` and `scale_shift`");
                return wrong("resnet_time_scale_shift", reason);
            }
        };
        let head_channels = match context {
            Some(_) => self.attention_head_dim.shared("attention_head_dim")?,
            // Nothing attends.
            None => 1,
        };
        let switches = UnClipSwitches {
            variance: out_channels == 6,
            modulation,
            activation: activation("act_fn", &self.act_fn)?,
            norm_eps: self.norm_eps,
            residual_scale: self.resnet_out_scale_factor,
            middle_scale: self.mid_block_scale_factor,
            middle_self_attention: !self.mid_block_only_cross_attention.unwrap_or(all_cross),
            image_tokens,
        };
        let dimensions = Dimensions {
            picture_channels: 3,
            low_res: context.is_none(),
            patch: 1,
            channels: self.unit(),
            levels,
            head_channels,
            norm: Norm::Group(groups),
            embedding_width: self.embedding_width(),
            context,
            detail: None,
        };
        let network = UnClip { dimensions, switches };
        network.validate()?;
        Ok(PublishedUnClip { network, sample_size: self.sample_size })
    }

    /// The greatest number that divides the channels of all levels.
    fn unit(&self) -> i64 {
        self.block_out_channels.iter().fold(0, |unit, &channels| gcd(unit, channels))
    }

    fn levels(&self, attends: bool) -> Result<Vec<Level>> {
        let (unit, count) = (self.unit().max(1), self.block_out_channels.len());
        let blocks = self.layers_per_block.get("layers_per_block", count)?;
        let only_cross = self.only_cross_attention.get("only_cross_attention", count)?;
        let names = |names: [&'static str; 2]| if attends { names } else { [names[0]; 2] };
        let down = names(["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"]);
        let down = kinds("down_block_types", &self.down_block_types, count, down)?;
        let up = names(["ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D"]);
        let mut up = kinds("up_block_types", &self.up_block_types, count, up)?;
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
