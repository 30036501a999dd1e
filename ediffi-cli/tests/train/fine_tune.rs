//! Networks that start from a model folder.

use super::*;

pub(super) const SHARED: &str = r#"[[stages.networks]]
name = "shared"
cell = "(0, 0)"
training = { steps = 150, learning-rate = 3e-3, warm-up = 10, ema = 0.9 }
"#;

/// The T5 of the plan.
const OWN: &str = "encoders = { own = { vocabulary = 50, width = 8, layers = 1, heads = 2, batch = 16, training = { steps = 40, learning-rate = 3e-3, ema = 0.9 } } }";

/// Two experts in the place of the base's network, which start from the model of the unbroken run, and hardly move.
fn experts(model: &str) -> String {
    let expert = |name: &str, cell: &str| {
        format!(
            "[[stages.networks]]\nname = \"{name}\"\ncell = \"{cell}\"\nstart = \"{model}\"\n\
             training = {{ steps = 2, learning-rate = 1e-12, ema = 0.9 }}\n\n"
        )
    };
    expert("high", "(1, 1)") + &expert("low", "(1, 0)")
}

#[test]
fn experts_branch_from_a_model_and_draw_together() {
    let (room, whole) = (Room::new(), whole());
    pictures(&room.path("pictures"));
    let model = whole.path("run/model");
    let model = model.to_str().unwrap();
    let its = format!("encoders = {{ model = \"{model}\" }}");
    room.plan("experts.toml", &[(SHARED, &experts(model)), (OWN, &its), ("steps = 60,", "steps = 4,")]);
    room.train("experts.toml", "pictures", "run", &[]);
    assert_eq!(room.draw("run/model", "a.png").dimensions(), (16, 16));
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(room.path("run/model/pipeline.json")).unwrap()).unwrap();
    let base = &manifest["stages"][0]["experts"];
    assert_eq!(
        (&base[0]["weights"], &base[1]["weights"]),
        (&"base/high.safetensors".into(), &"base/low.safetensors".into())
    );
    assert_eq!(base[0]["sigma"][0], base[1]["sigma"][1]);
    let (ours, theirs) = (weights(&room.path("run/model/base")), weights(&whole.path("run/model/base")));
    assert!(ours.values().all(|weights| *weights == theirs["shared.safetensors"]) && ours.len() == 2);
    // Another network: the key that differs is named, and nothing has begun.
    let wider = [(SHARED, experts(model)), (OWN, its), ("channels = 16", "channels = 24".to_owned())];
    let wider: Vec<(&str, &str)> = wider.iter().map(|(from, to)| (*from, to.as_str())).collect();
    room.plan("wider.toml", &wider);
    let (code, error) = room.fails("wider.toml", "pictures", "wider", &[]);
    assert_eq!(code, Some(2));
    assert!(error.contains("base.high cannot start from") && error.contains("network.channels is 16"), "{error}");
    assert!(!room.path("wider").exists());
}

/// The base of the unbroken run's model, frozen, and changes of it.
#[test]
fn a_lora_is_trained_and_merged_and_stands_in_a_file_of_its_own() {
    let (room, whole) = (Room::new(), whole());
    pictures(&room.path("pictures"));
    let model = whole.path("run/model");
    let model = model.to_str().unwrap();
    let lora = "lora = { rank = 2, alpha = 4.0, targets = [\"q\", \"kv\", \"cross_attention.out\", \"res.conv1\"] }";
    let network = |lora: &str| {
        format!(
            "[[stages.networks]]\nname = \"shared\"\ncell = \"(0, 0)\"\nstart = \"{model}\"\n{lora}\n\
             training = {{ steps = 60, learning-rate = 1e-2, ema = 0.9 }}\n\n"
        )
    };
    let its = format!("encoders = {{ model = \"{model}\" }}");
    let (style, wrong) = (network(lora), network(&lora.replace("\"q\"", "\"to_q\"")));
    room.plan("lora.toml", &[(SHARED, &style), (OWN, &its)]);
    room.train("lora.toml", "pictures", "run", &["--only", "base.shared"]);
    let size = |room: &Room, file: &str| fs::metadata(room.path(file)).unwrap().len();
    let checkpoint = "run/base.shared.checkpoint.safetensors";
    assert!(2 * size(&room, checkpoint) < size(whole, checkpoint), "LoRAs alone are in it");
    assert!(!room.path("run/model").exists(), "super-resolution is not trained");
    room.train("lora.toml", "pictures", "run", &["--begin", "resume"]);
    let drawn = |model: &str, more: &[&str]| {
        let arguments =
            ["draw", "a red square", "--model", model, "--seed", "7", "--out", "a.png", "--last-stage", "base"];
        let mut command = room.command(&arguments);
        Room::said(&command.args(["--device", "cpu", "--precision", "f32"]).args(more).output().unwrap());
        image::open(room.path("a.png")).unwrap().into_rgb8().into_raw()
    };
    let file = "run/model/loras/base.shared.safetensors";
    let (merged, beside, plain) = (drawn("run/model", &[]), drawn(model, &["--lora", file]), drawn(model, &[]));
    let apart =
        |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64;
    let (same, other) = (apart(&merged, &beside), apart(&plain, &beside));
    assert!(drawn(model, &["--lora", &format!("{file}@shared=1")]) == beside, "for the one expert there is");
    let unknown = format!("{file}@high=0.8");
    let refused = room.command(&["draw", "a red square", "--model", model, "--lora", &unknown]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("no expert `high`") && said.contains("shared"), "{said}");
    // The merged weights are rounded to bf16.
    assert!(same < 2.0 && other > 4.0 * same.max(0.5), "{same} from the merged one, {other} from the one without");
    room.plan("wrong.toml", &[(SHARED, &wrong), (OWN, &its)]);
    let (code, error) = room.fails("wrong.toml", "pictures", "wrong", &[]);
    assert!(code == Some(2) && error.contains("base.shared") && error.contains("\"to_q\""), "{error}");
}

/// The experts of the shipped model's base, two steps each, with all that they are told: T5, CLIP's text and CLIP's view of pictures. The
/// low one has a detail head, and the high one gains one.
#[test]
fn the_shipped_model_is_trained_on() {
    let room = Room::new();
    pictures(&room.path("pictures"));
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/icons/base/config.json");
    let stage = format!(
        "name = \"more\"\nseed = 1\nbatch = 2\nencoders = {{ model = \"icons\" }}\ndata = {{ held-out = 0 }}\n\
         dropout = {{ clip-image = 0.5 }}\n[[stages]]\nname = \"base\"\nside = 64\nnetwork = {config:?}\n\
         precondition = {{ sample = {{ sigma_data = 0.5 }} }}\nnoise = {{ p_mean = 0.4, p_std = 1.4 }}\n\
         sampler = {{ solver = \"dpmpp-2m\", steps = 2, schedule = {{ karras = {{ min = 0.05, max = 80.0, rho = 7.0 }} }} }}\n"
    );
    let network = |(name, cell, start): (&str, &str, &str)| {
        format!(
            "[[stages.networks]]\nname = \"{name}\"\ncell = \"{cell}\"\n{start}\
             training = {{ steps = 2, learning-rate = 1e-4, ema = 0.9 }}\n"
        )
    };
    let icons = "start = \"icons\"\n";
    let head = |channels| format!("{icons}detail = {{ channels = {channels}, blocks = 2 }}\n");
    let (gains, has) = (head(16), head(32));
    let cells = [("high", "(2, 3)", &*gains), ("middle", "all but (2, 0) and (2, 3)", icons), ("low", "(2, 0)", &*has)];
    fs::write(room.path("more.toml"), stage.clone() + &cells.map(network).concat()).unwrap();
    room.train("more.toml", "pictures", "run", &[]);
    for name in ["high", "middle", "low"] {
        assert!(room.path(&format!("run/sheets/base.{name}-000000002.png")).is_file(), "{name}");
        assert_eq!(room.path(&format!("run/model/base/{name}.json")).is_file(), name != "middle", "{name}");
    }
    assert_eq!(room.draw("run/model", "a.png").dimensions(), (64, 64));
    for file in ["clip/preprocessor_config.json", "notices/1/NOTICE-icons.md", "notices/1/LICENSE-noto.txt"] {
        assert!(room.path("run/model").join(file).is_file(), "{file}");
    }
    // One network for all noise levels: none of the shipped experts knows them all.
    fs::write(room.path("one.toml"), stage + &network(("shared", "(0, 0)", icons))).unwrap();
    let (code, error) = room.fails("one.toml", "pictures", "one", &[]);
    assert!(code == Some(2) && error.contains("start-weights") && error.contains("base/middle.safetensors"), "{error}");
}
