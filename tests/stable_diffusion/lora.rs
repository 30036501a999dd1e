//! LoRAs: pictures beside those of diffusers and PEFT, experts with LoRAs of their own, and files that are refused by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ediffi::{Error, Kind, Lora, Pipeline, PipelineBuilder, Request, SigmaInterval, Tensor, Worker};

use super::folders::{Folder, fixture};
use super::{PROMPT, Tensors, draw, off, recorded, request};

const NETWORK: &str = "unet/diffusion_pytorch_model.safetensors";
const TEXT: &str = "text_encoder/model.safetensors";

/// A LoRA of the fixtures, `a` as PEFT writes it, `b` as Kohya's scripts do; at the scale that the pictures were drawn with.
fn lora(folder: &str, which: &str) -> Lora {
    Lora::new(file(folder, which)).scale(if which == "a" { 0.7 } else { -0.4 })
}

fn file(folder: &str, which: &str) -> PathBuf {
    fixture("lora").join(format!("{folder}.{which}.safetensors"))
}

fn tensors(path: &Path) -> Tensors {
    Tensor::read_safetensors(path).unwrap().into_iter().collect()
}

fn write(tensors: &Tensors, path: &Path) {
    let tensors: Vec<(String, Tensor)> = tensors.iter().map(|(name, x)| (name.clone(), x.shallow_clone())).collect();
    Tensor::write_safetensors(&tensors, path).unwrap();
}

fn opened(builder: PipelineBuilder) -> Pipeline {
    builder.open().unwrap()
}

/// The floats of a small picture.
fn picture(pipeline: &Pipeline) -> Tensor {
    let request = Request::new(PROMPT).size(24, 16).steps("base", 4).seed(3);
    pipeline.generate(&request).unwrap().images[0].tensor().unwrap()
}

/// `weight` with what a LoRA of Kohya's names has for it, at `scale`.
fn by_hand(name: &str, weight: Tensor, lora: &Tensors, prefix: &str, scale: f64) -> Tensor {
    let layer = format!("{prefix}{}", name.trim_end_matches(".weight").replace('.', "_"));
    let part = |end: &str| lora.get(&format!("{layer}.{end}")).map(|x| x.to_kind(Kind::Float));
    let Some((up, down)) = part("lora_up.weight").zip(part("lora_down.weight")) else { return weight };
    let alpha = f64::try_from(part("alpha").unwrap()).unwrap();
    let added = up.flatten(1, -1).matmul(&down.flatten(1, -1)) * (scale * (alpha / down.size()[0] as f64));
    weight.to_kind(Kind::Float) + added.view(weight.size().as_slice())
}

#[test]
fn one_and_two_loras_draw_the_pictures_of_diffusers() {
    let (io, expected) = (recorded(), tensors(&fixture("lora/pictures.safetensors")));
    let mut wrong = Vec::new();
    for (name, folder) in [("sd-1", Folder::first()), ("xl-base", Folder::base())] {
        for which in ["a", "b", "ab"] {
            let loras = which.chars().map(|one| lora(name, &one.to_string()));
            let pipeline = opened(loras.fold(folder.builder(), PipelineBuilder::lora));
            let embeddings = pipeline.encode(&request()).unwrap();
            let drawn = draw(&pipeline, &embeddings, &request(), &io, "start");
            let off = off(&drawn, &expected[&format!("{name}.{which}")].to_kind(Kind::Float));
            if off > 0.25 {
                wrong.push(format!("{name} with {which} is off by {off:.2} steps of 8 bits"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_lora_is_what_is_merged_by_hand() {
    let (folder, merged) = (Folder::first(), Folder::first());
    let plain = picture(&folder.open());
    let with = |scale| picture(&opened(folder.builder().lora(Lora::new(file("sd-1", "b")).scale(scale))));
    assert_eq!(with(0.0), plain);
    let lora = tensors(&file("sd-1", "b"));
    merged.change(NETWORK, |name, x| by_hand(name, x, &lora, "lora_unet_", -0.4));
    merged.change(TEXT, |name, x| by_hand(name, x, &lora, "lora_te_text_model_", -0.4));
    let drawn = with(-0.4);
    assert_eq!(drawn, picture(&merged.open()));
    assert_ne!(drawn, plain);
    // Weights that need not be converted are read by another way.
    let whole = Folder::first();
    [NETWORK, TEXT].iter().for_each(|file| whole.change(file, |_, x| x.to_kind(Kind::Float)));
    assert_eq!(picture(&opened(whole.builder().lora(self::lora("sd-1", "b")))), drawn);
    // Without what it has for the text encoder.
    let network = picture(&opened(folder.builder().lora(self::lora("sd-1", "b").network_only())));
    assert!(network != drawn && network != plain);
}

#[test]
fn an_expert_has_loras_of_its_own() {
    let (folder, other, merged) = (Folder::first(), Folder::first(), Folder::first());
    let above = SigmaInterval::new(1.0, f64::INFINITY).unwrap();
    let pair = |lower: &Folder, upper: &Folder| lower.builder().expert(above, upper.path());
    let network = || lora("sd-1", "b").network_only();
    let lora = tensors(&file("sd-1", "b"));
    merged.change(NETWORK, |name, x| by_hand(name, x, &lora, "lora_unet_", -0.4));
    let of_upper = picture(&opened(pair(&folder, &other).lora_of_expert(1, network())));
    assert_eq!(of_upper, picture(&opened(pair(&folder, &merged))));
    let of_lower = picture(&opened(pair(&folder, &other).lora_of_expert(0, network())));
    assert_eq!(of_lower, picture(&opened(pair(&merged, &other))));
    let of_both = picture(&opened(pair(&folder, &other).lora(network())));
    assert_eq!(of_both, picture(&opened(pair(&merged, &merged))));
    assert!(of_upper != of_lower && of_upper != of_both && of_lower != of_both);
    let refused = |lora, expert| pair(&folder, &other).lora_of_expert(expert, lora).open().unwrap_err().to_string();
    let message = refused(self::lora("sd-1", "b"), 1);
    assert!(message.contains("sd-1.b.safetensors") && message.contains("`Lora::network_only`"), "{message}");
    assert!(refused(network(), 2).contains("no expert 2: the ensemble has 2"));
}

/// The refiner is another network than the base, whose LoRA it does not take.
#[test]
fn a_lora_of_the_base_leaves_the_refiner_alone() {
    let (base, refiner) = (Folder::base(), Folder::refiner());
    let below = SigmaInterval::new(0.0, 1.0).unwrap();
    let pair = || base.builder().expert(below, refiner.path());
    let plain = picture(&opened(pair()));
    assert_ne!(picture(&opened(pair().lora(lora("xl-base", "b")))), plain);
    let error = pair().lora_of_expert(1, lora("xl-base", "b").network_only()).open().unwrap_err();
    assert!(error.to_string().contains("made for another base"), "{error}");
}

#[test]
fn a_picture_tells_its_loras() {
    let folder = Folder::first();
    let made = |builder: PipelineBuilder| opened(builder).provenance(&request()).unwrap();
    let plain = made(folder.builder());
    let with = |lora: Lora| made(folder.builder().lora(lora));
    let one = with(lora("sd-1", "b"));
    assert!(one.encoders != plain.encoders && one.stages["base"].digest != plain.stages["base"].digest);
    assert_eq!(one.differences(&with(lora("sd-1", "b"))), Vec::<String>::new());
    assert_eq!(one.differences(&with(lora("sd-1", "b").scale(0.3))).len(), 2);
    assert_eq!(one.differences(&with(lora("sd-1", "a"))).len(), 2);
    assert_eq!(plain.differences(&with(lora("sd-1", "b").network_only())).len(), 1);
    // Of one folder with two LoRAs no worker is made.
    let pipelines = [-0.4, 0.4].map(|scale| opened(folder.builder().lora(lora("sd-1", "b").scale(scale))));
    let error = Worker::over(pipelines, 1).unwrap_err();
    assert!(matches!(error, Error::WorkerPipelinesDiffer("weights")), "{error}");
}

/// A file that took the place of one that was opened is not merged.
#[test]
fn a_lora_that_was_replaced_is_noticed() {
    let folder = Folder::first();
    let path = folder.path().join("style.safetensors");
    std::fs::copy(file("sd-1", "b"), &path).unwrap();
    let pipeline = opened(folder.builder().lora(Lora::new(&path)));
    let other = folder.path().join("other.safetensors");
    std::fs::copy(file("sd-1", "a"), &other).unwrap();
    std::fs::rename(&other, &path).unwrap();
    let error = pipeline.generate(&request()).unwrap_err();
    assert!(format!("{error:?}").contains("FolderReplaced"), "{error:?}");
}

#[test]
fn what_cannot_be_merged_is_named_when_it_is_opened() {
    let folder = Folder::first();
    let refused = |lora: Lora, parts: &[&str]| {
        let message = folder.builder().lora(lora).open().unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{parts:?} in {message}");
    };
    refused(lora("xl-base", "a"), &["xl-base.a.safetensors", "made for another base", "transformer_blocks.1."]);
    refused(lora("xl-base", "b").network_only(), &["made for another base", "`input_blocks_3_1_transformer_blocks_1_"]);
    refused(lora("sd-1", "b").scale(f64::NAN), &["scale is NaN"]);
    refused(Lora::new("nowhere.safetensors"), &["nowhere.safetensors"]);
    let path = folder.path().join("style.safetensors");
    let changed = |from: &str, to: &str, parts: &[&str]| {
        let renamed = tensors(&file("sd-1", "b")).into_iter().map(|(name, x)| (name.replace(from, to), x));
        write(&renamed.collect(), &path);
        refused(Lora::new(&path), &[&["style.safetensors"], parts].concat());
    };
    changed("mid_block_attentions_0", "mid_block_attentions_7", &["another base", "`mid_block_attentions_7_"]);
    changed("lora_te_", "lora_te2_", &["second text encoder"]);
    changed("proj_out.alpha", "proj_out.dora_scale", &["proj_out.dora_scale", "DoRA"]);
    changed("proj_out.lora_up.weight", "proj_out.hada_w1_a", &["proj_out.hada_w1_a", "LoHa"]);
    changed("proj_out.lora_up.weight", "proj_out.lokr_w1", &["LoKr"]);
    changed(
        "proj_out.lora_up.weight",
        "proj_out.lora_up.bias",
        &["`lora_unet_up_blocks_1_attentions_0_proj_out.lora_up.bias`"],
    );
    changed("proj_out.lora_up.weight", "proj_in.lora_up.weight", &["`up_blocks_1_attentions_0_proj_", "is missing"]);
    let reshaped = |name: &str, shape: &[i64], parts: &[&str]| {
        let mut found: BTreeMap<String, Tensor> = tensors(&file("sd-1", "b"));
        let key = found.keys().find(|key| key.ends_with(name)).unwrap().clone();
        found.insert(key, Tensor::ones(shape, (Kind::Half, ediffi::Device::Cpu)));
        write(&found, &path);
        refused(Lora::new(&path), parts);
    };
    reshaped("attn2_to_k.lora_down.weight", &[2, 9], &["another base", "attn2_to_k", "[4, 9]", "[4, 6]"]);
    reshaped("attn2_to_k.lora_down.weight", &[3, 6], &["attn2_to_k", "not of one rank"]);
    reshaped("attn2_to_k.alpha", &[2], &["attn2_to_k", "is no number"]);
    let pickle = folder.path().join("style.pt");
    std::fs::write(&pickle, "pickle").unwrap();
    refused(Lora::new(&pickle), &["style.pt", "pickled Python"]);
    std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\n").unwrap();
    refused(Lora::new(&path), &["pointer of git-lfs"]);
    std::fs::write(&path, "no safetensors at all").unwrap();
    refused(Lora::new(&path), &["no complete safetensors file"]);
}

/// The shipped model: LoRAs of its own layers change the experts that they are for.
#[test]
fn a_model_folder_takes_loras_of_its_own_layers() {
    let Ok(icons) = ediffi::icons() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("style.safetensors");
    let half = |name: &str, shape: [i64; 2]| {
        let values = Tensor::arange(shape[0] * shape[1], (Kind::Float, ediffi::Device::Cpu)).sin() * 0.3;
        (format!("unet.steps.2.cross_attention.q.lora_{name}.weight"), values.view(shape))
    };
    write(&[half("A", [2, 80]), half("B", [80, 2])].into_iter().collect(), &path);
    let cpu = || Pipeline::builder(&icons).device(ediffi::DeviceChoice::Cpu).precision(ediffi::Precision::F32);
    let builder = || cpu().keep_floats(true);
    let request = Request::new("a red apple").last_stage("base").steps("base", 4).seed(3);
    let drawn = |builder: PipelineBuilder| opened(builder).generate(&request).unwrap().images[0].tensor().unwrap();
    let plain = drawn(builder());
    assert_eq!(drawn(builder().lora(Lora::new(&path).scale(0.0))), plain);
    let [of_first, of_last] = [0, 2].map(|expert| drawn(builder().lora_of_expert(expert, Lora::new(&path))));
    assert!(of_first != plain && of_last != plain && of_first != of_last);
    let refused = |builder: PipelineBuilder| builder.open().unwrap_err().to_string();
    let beyond = refused(builder().lora_of_expert(3, Lora::new(&path)));
    assert!(beyond.contains('3'), "{beyond}");
    for of_another in [lora("sd-1", "b"), lora("sd-1", "b").network_only()] {
        let message = refused(builder().lora(of_another));
        assert!(message.contains("it was made for another base"), "{message}");
    }
}
