//! Checkpoints of one file: made of the fixtures' folders by the names of the original code.

use std::fs;
use std::path::{Path, PathBuf};

use ediffi::{DeviceChoice, Error, ExpertInterval, Kind, Lora, Pipeline, PipelineBuilder, Precision, Request, Tensor};

use super::folders::{Folder, fixture};
use super::{PROMPT, difference};

pub(super) type Named = Vec<(String, Tensor)>;

pub(super) fn read(folder: &Folder, file: &str) -> Named {
    Tensor::read_safetensors(folder.path().join(file)).unwrap()
}

/// The tensors of a network, whose levels have `blocks` residual blocks on the way down.
fn network(folder: &Folder, blocks: usize) -> Named {
    let own = read(folder, "unet/diffusion_pytorch_model.safetensors");
    let attends = |level: &str| own.iter().any(|(name, _)| name.starts_with(&format!("up_blocks.{level}.attentions.")));
    let layer = |rest: &str| {
        let rest = rest.replace("norm1", "in_layers.0").replace("conv1", "in_layers.2");
        let rest = rest.replace("norm2", "out_layers.0").replace("conv2", "out_layers.3");
        rest.replace("time_emb_proj", "emb_layers.1").replace("conv_shortcut", "skip_connection")
    };
    let name = |name: &str| {
        let parts: Vec<&str> = name.split('.').collect();
        let rest = |from: usize| parts[from..].join(".");
        let number = |at: usize| parts[at].parse::<usize>().unwrap();
        match (parts[0], *parts.get(2).unwrap_or(&"")) {
            ("conv_in", _) => format!("input_blocks.0.0.{}", rest(1)),
            ("conv_norm_out", _) => format!("out.0.{}", rest(1)),
            ("conv_out", _) => format!("out.2.{}", rest(1)),
            ("time_embedding", _) => format!("time_embed.{}.{}", if parts[1] == "linear_1" { 0 } else { 2 }, rest(2)),
            ("add_embedding", _) => format!("label_emb.0.{}.{}", if parts[1] == "linear_1" { 0 } else { 2 }, rest(2)),
            ("mid_block", _) if parts[1] == "attentions" => format!("middle_block.1.{}", rest(3)),
            ("mid_block", _) => format!("middle_block.{}.{}", 2 * number(2), layer(&rest(3))),
            ("down_blocks", "downsamplers") => {
                format!("input_blocks.{}.0.op.{}", (blocks + 1) * (number(1) + 1), rest(5))
            }
            ("up_blocks", "upsamplers") => {
                let place = if attends(parts[1]) { 2 } else { 1 };
                format!("output_blocks.{}.{place}.conv.{}", (blocks + 1) * number(1) + blocks, rest(5))
            }
            (side, kind) => {
                let down = side == "down_blocks";
                let block = (blocks + 1) * number(1) + number(3) + usize::from(down);
                let (side, rest) = (if down { "input_blocks" } else { "output_blocks" }, rest(4));
                if kind == "attentions" {
                    format!("{side}.{block}.1.{rest}")
                } else {
                    format!("{side}.{block}.0.{}", layer(&rest))
                }
            }
        }
    };
    own.iter().map(|(own, x)| (format!("model.diffusion_model.{}", name(own)), x.shallow_clone())).collect()
}

fn autoencoder(folder: &Folder) -> Named {
    let own = read(folder, "vae/diffusion_pytorch_model.safetensors");
    let level = |name: &str| name.strip_prefix("decoder.up_blocks.").map(|rest| rest[..1].parse::<usize>().unwrap());
    let last = own.iter().filter_map(|(name, _)| level(name)).max().unwrap();
    let name = |name: &str| {
        let mut name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut");
        for at in 0..=last {
            let up = last - at;
            for (new, old) in [
                (format!("down_blocks.{at}.resnets"), format!("down.{at}.block")),
                (format!("down_blocks.{at}.downsamplers.0"), format!("down.{at}.downsample")),
                (format!("up_blocks.{at}.resnets"), format!("up.{up}.block")),
                (format!("up_blocks.{at}.upsamplers.0"), format!("up.{up}.upsample")),
            ] {
                name = name.replace(&new, &old);
            }
        }
        for (new, old) in [
            ("mid_block.resnets.0", "mid.block_1"),
            ("mid_block.resnets.1", "mid.block_2"),
            ("mid_block.attentions.0.group_norm", "mid.attn_1.norm"),
            ("mid_block.attentions.0.to_q", "mid.attn_1.q"),
            ("mid_block.attentions.0.to_k", "mid.attn_1.k"),
            ("mid_block.attentions.0.to_v", "mid.attn_1.v"),
            ("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out"),
        ] {
            name = name.replace(new, old);
        }
        name
    };
    let of = |(own, x): &(String, Tensor)| {
        let name = name(own);
        let matrix = name.contains("attn_1") && x.dim() == 2;
        (format!("first_stage_model.{name}"), if matrix { x.unsqueeze(-1).unsqueeze(-1) } else { x.shallow_clone() })
    };
    own.iter().map(of).collect()
}

/// An encoder as transformers saves it, with the prefix that newer versions leave out.
fn clip(folder: &Folder, part: &str) -> Named {
    let own = read(folder, &format!("{part}/model.safetensors"));
    let whole = |name: String| if name.starts_with("text_") { name } else { format!("text_model.{name}") };
    own.into_iter().map(|(name, x)| (whole(name), x)).collect()
}

fn behind(prefix: &str, named: Named) -> Named {
    named.into_iter().map(|(name, x)| (format!("{prefix}{name}"), x)).collect()
}

/// The same as OpenCLIP has it.
fn open_clip(folder: &Folder, part: &str) -> Named {
    let own = clip(folder, part);
    let find = |name: &str| own.iter().find(|(own, _)| own == name).map(|(_, x)| x.shallow_clone());
    let mut named: Named = Vec::new();
    for (name, x) in &own {
        let x = x.shallow_clone();
        if name == "text_projection.weight" {
            named.push(("text_projection".to_owned(), x.transpose(0, 1).contiguous()));
            continue;
        }
        let name = name.strip_prefix("text_model.").unwrap();
        let name = match name {
            "embeddings.token_embedding.weight" => "token_embedding.weight".to_owned(),
            "embeddings.position_embedding.weight" => "positional_embedding".to_owned(),
            _ => {
                let name =
                    name.replace("final_layer_norm", "ln_final").replace("encoder.layers", "transformer.resblocks");
                let name = name.replace("layer_norm1", "ln_1").replace("layer_norm2", "ln_2");
                let name =
                    name.replace("mlp.fc1", "mlp.c_fc").replace("mlp.fc2", "mlp.c_proj").replace("self_attn", "attn");
                if let Some((block, parameter)) = name.split_once("q_proj.") {
                    let own = |map: &str| find(&format!("text_model.{}", own_name(block, map, parameter))).unwrap();
                    named
                        .push((format!("{block}in_proj_{parameter}"), Tensor::cat(&[own("q"), own("k"), own("v")], 0)));
                    continue;
                }
                if name.contains("k_proj.") || name.contains("v_proj.") {
                    continue;
                }
                name
            }
        };
        named.push((name, x));
    }
    named.push(("logit_scale".to_owned(), Tensor::from(4.6_f32)));
    named
}

fn own_name(block: &str, map: &str, parameter: &str) -> String {
    let block = block.replace("transformer.resblocks", "encoder.layers").replace("attn", "self_attn");
    format!("{block}{map}_proj.{parameter}")
}

/// What a checkpoint of the folder holds, and what nobody reads.
fn checkpoint(folder: &Folder, blocks: usize, text: Vec<Named>) -> Named {
    let mut all = [network(folder, blocks), autoencoder(folder)].concat_named();
    all.extend(text.into_iter().flatten());
    for unused in ["model_ema.decay", "betas", "alphas_cumprod", "cond_stage_model.unused", "conditioner.unused"] {
        if !unused.starts_with("cond_stage_model") || all.iter().any(|(name, _)| name.starts_with("cond_stage_model."))
        {
            all.push((unused.to_owned(), Tensor::from(0.5_f32)));
        }
    }
    all
}

trait ConcatNamed {
    fn concat_named(self) -> Named;
}

impl<const N: usize> ConcatNamed for [Named; N] {
    fn concat_named(self) -> Named {
        self.into_iter().flatten().collect()
    }
}

/// A folder with its weights taken out, beside a file that has them.
pub(super) struct Single {
    pub(super) folder: Folder,
    file: PathBuf,
    named: Named,
}

impl Single {
    fn new(folder: Folder, named: Named) -> Self {
        let file = folder.path().join("checkpoint.safetensors");
        Tensor::write_safetensors(&named, &file).unwrap();
        for part in fs::read_dir(folder.path()).unwrap().flatten().filter(|part| part.path().is_dir()) {
            for weights in ["model.safetensors", "diffusion_pytorch_model.safetensors"] {
                fs::remove_file(part.path().join(weights)).ok();
            }
        }
        Self { folder, file, named }
    }

    fn first() -> Self {
        let folder = Folder::first();
        let text = behind("cond_stage_model.transformer.", clip(&folder, "text_encoder"));
        let mut named = checkpoint(&folder, blocks("unet-1"), vec![text]);
        let positions = "cond_stage_model.transformer.text_model.embeddings.position_ids";
        named.push((positions.to_owned(), Tensor::from_slice(&[0_i64, 1, 2])));
        Self::new(folder, named)
    }

    /// With one layer more than are read, and a projection that is not.
    fn second() -> Self {
        let folder = Folder::second();
        let mut text = open_clip(&folder, "text_encoder");
        let layers = text.iter().filter(|(name, _)| name.ends_with("in_proj_weight")).count();
        let last = format!("transformer.resblocks.{}.", layers - 1);
        let beyond: Named = text
            .iter()
            .filter(|(name, _)| name.starts_with(&last))
            .map(|(name, x)| (name.replace(&last, &format!("transformer.resblocks.{layers}.")), x.zeros_like()))
            .collect();
        text.extend(beyond);
        text.push(("text_projection".to_owned(), Tensor::ones([4, 4], (Kind::Float, ediffi::Device::Cpu))));
        let named = checkpoint(&folder, blocks("unet-2"), vec![behind("cond_stage_model.model.", text)]);
        Self::new(folder, named)
    }

    pub(super) fn base() -> Self {
        let folder = Folder::base();
        let first = behind("conditioner.embedders.0.transformer.", clip(&folder, "text_encoder"));
        let second = behind("conditioner.embedders.1.model.", open_clip(&folder, "text_encoder_2"));
        let named = checkpoint(&folder, blocks("unet-xl"), vec![first, second]);
        Self::new(folder, named)
    }

    fn refiner() -> Self {
        let folder = Folder::refiner();
        let text = behind("conditioner.embedders.0.model.", open_clip(&folder, "text_encoder_2"));
        let named = checkpoint(&folder, blocks("unet-refiner"), vec![text]);
        Self::new(folder, named)
    }

    pub(super) fn builder(&self) -> PipelineBuilder {
        builder(&self.file)
    }

    /// What opening it says without tensors that begin so.
    fn without(&self, start: &str) -> String {
        let named: Named = self
            .named
            .iter()
            .filter(|(name, _)| !name.starts_with(start))
            .map(|(name, x)| (name.clone(), x.shallow_clone()))
            .collect();
        assert!(named.len() < self.named.len(), "{start}");
        let file = self.folder.path().join("spoilt.safetensors");
        Tensor::write_safetensors(&named, &file).unwrap();
        builder(&file).like(self.folder.path()).open().unwrap_err().to_string()
    }
}

fn builder(file: &Path) -> PipelineBuilder {
    Pipeline::builder(file).device(DeviceChoice::Cpu).precision(Precision::F32).keep_floats(true)
}

/// Residual blocks of a level on the way down.
fn blocks(unet: &str) -> usize {
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(fixture(unet).join("config.json")).unwrap()).unwrap();
    config["layers_per_block"].as_u64().unwrap_or(2) as usize
}

fn picture(builder: PipelineBuilder) -> Tensor {
    let request = Request::new(PROMPT).negative_prompt("blur").size(24, 16).steps("base", 6).seed(5);
    builder.open().unwrap().generate(&request).unwrap().images[0].tensor().unwrap()
}

#[test]
fn a_checkpoint_draws_what_its_folder_draws() {
    for (name, folder, single) in [
        ("first", Folder::first(), Single::first()),
        ("second", Folder::second(), Single::second()),
        ("base", Folder::base(), Single::base()),
    ] {
        let found = picture(single.builder().like(single.folder.path()));
        assert_eq!(difference(&found, &picture(folder.builder())), 0.0, "{name}");
    }
}

/// Files and folders make one ensemble, in any combination; what a checkpoint is like may be any folder that is there.
#[test]
fn checkpoints_are_experts() {
    let (base, refiner, of_base, of_refiner) = (Folder::base(), Folder::refiner(), Single::base(), Single::refiner());
    let late = ExpertInterval::timesteps(..400);
    let expected = picture(base.builder().expert(late, refiner.path()));
    let found = [
        of_base.builder().expert(late, &of_refiner.file).like(of_refiner.folder.path()).like(of_base.folder.path()),
        base.builder().expert(late, &of_refiner.file).like(refiner.path()),
        of_base.builder().expert(late, refiner.path()).like(base.path()),
    ];
    for builder in found {
        assert_eq!(difference(&picture(builder), &expected), 0.0);
    }
    let (first, of_first) = (Folder::first(), Single::first());
    let pair = picture(first.builder().expert(late, &of_first.file));
    assert_eq!(difference(&pair, &picture(first.builder())), 0.0, "the folder itself is like it");
    let label = of_first.builder().like(first.path()).open().unwrap().manifest().stages[0].experts[0].weights.clone();
    assert_eq!(label, Path::new("checkpoint.safetensors"));
}

#[test]
fn a_lora_changes_a_checkpoint_as_its_folder() {
    let (folder, single) = (Folder::first(), Single::first());
    let lora = || Lora::new(fixture("lora/sd-1.a.safetensors"));
    let found = picture(single.builder().like(folder.path()).lora(lora()));
    assert_eq!(difference(&found, &picture(folder.builder().lora(lora()))), 0.0);
    assert!(difference(&found, &picture(folder.builder())) > 1e-3);
}

#[test]
fn a_saved_picture_tells_which_checkpoint_drew_it() {
    let single = Single::first();
    let request = Request::new(PROMPT).steps("base", 2);
    let made = || single.builder().like(single.folder.path()).open().unwrap().provenance(&request).unwrap();
    let before = made();
    assert_eq!(before.differences(&made()), Vec::<String>::new());
    let changed: Named = single
        .named
        .iter()
        .map(|(name, x)| {
            let changed = name.starts_with("model.diffusion_model.out.2.");
            (name.clone(), if changed { x * 2.0 } else { x.shallow_clone() })
        })
        .collect();
    Tensor::write_safetensors(&changed, &single.file).unwrap();
    assert!(!before.differences(&made()).is_empty());
}

#[test]
fn what_a_checkpoint_lacks_is_said() {
    let (first, second) = (Single::first(), Single::second());
    let message = first.builder().open().unwrap_err().to_string();
    for part in ["checkpoint of Stable Diffusion 1,", "`PipelineBuilder::like`", "--like", "tokenizers"] {
        assert!(message.contains(part), "{part} in {message}");
    }
    let message = first.builder().like(second.folder.path()).open().unwrap_err().to_string();
    assert!(
        message.contains("checkpoint of Stable Diffusion 1,") && message.contains("holds Stable Diffusion 2"),
        "{message}"
    );
    let message = Single::refiner().builder().like(Folder::refiner().path()).open().unwrap_err().to_string();
    assert!(message.contains("SDXL's refiner"), "{message}");
    for (start, words) in [
        ("model.diffusion_model.", "no name begins with `model.diffusion_model.`"),
        ("first_stage_model.", "it has no autoencoder"),
        ("cond_stage_model.", "it has no text encoder"),
        ("model.diffusion_model.out.2.weight", "conv_out.weight"),
        ("first_stage_model.decoder.norm_out.bias", "decoder.conv_norm_out.bias"),
        ("cond_stage_model.transformer.text_model.final_layer_norm.bias", "text_model.final_layer_norm.bias"),
    ] {
        let message = first.without(start);
        assert!(message.contains(words), "{message}");
    }
    let message = second.without("cond_stage_model.model.transformer.resblocks.0.attn.in_proj_bias");
    assert!(message.contains("encoder.layers.0.self_attn.q_proj.bias"), "{message}");
    let pickle = first.folder.path().join("model.ckpt");
    fs::write(&pickle, "PK").unwrap();
    let message = builder(&pickle).like(first.folder.path()).open().unwrap_err().to_string();
    assert!(message.contains("pickles"), "{message}");
    let idle = Folder::first().builder().like(first.folder.path()).open().unwrap_err();
    assert!(matches!(idle, Error::IdleOption { option: "like", .. }), "{idle}");
}
