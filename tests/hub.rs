//! Opening a model by name from a hub: against a small server that speaks the hub's protocol.
#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../ediffi-encoders/tests/hub/server.rs"]
#[allow(dead_code, reason = "the encoders' tests ask more of it")]
mod server;

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use ediffi::hub::HubPipeline;
use ediffi::{DeviceChoice, Pipeline, PipelineBuilder, Precision, Request, icons};
use server::{FIRST, Files, Server};

/// Set in the process of [`child`]: the way by which it opens the model.
const CHILD: &str = "EDIFFI_TEST_OPEN_BY";
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/icons");

/// The shipped model, and files that nobody needs.
fn files() -> Files {
    let mut files = Files::from([
        ("README.md".to_owned(), b"unused".to_vec()),
        ("base/pickled.bin".to_owned(), b"unused".to_vec()),
    ]);
    for folder in ["", "base", "sr256", "sr1024", "t5", "clip"] {
        for file in
            std::fs::read_dir(Path::new(MODEL).join(folder)).unwrap().flatten().filter(|file| file.path().is_file())
        {
            let name = Path::new(folder).join(file.file_name()).to_string_lossy().into_owned();
            if ["json", "safetensors"].iter().any(|ending| name.ends_with(ending)) {
                files.insert(name, std::fs::read(file.path()).unwrap());
            }
        }
    }
    // Paths that the shipped model leaves out: an expert's own dimensions, and a weaker network that nothing leans away from.
    let mut manifest: serde_json::Value = serde_json::from_slice(&files["pipeline.json"]).unwrap();
    manifest["stages"][0]["experts"][0]["network"] = "base/own.json".into();
    manifest["stages"][0]["weaker"] = serde_json::json!({ "weights": "base/early.safetensors" });
    for (copy, of) in [("base/own.json", "base/config.json"), ("base/early.safetensors", "base/high.safetensors")] {
        files.insert(copy.to_owned(), files[of].clone());
    }
    files.insert("pipeline.json".to_owned(), manifest.to_string().into_bytes());
    files
}

fn request() -> Request {
    Request::new("a red apple").seed(7).last_stage("base").steps("base", 2)
}

fn drawn(pipeline: ediffi::Result<Pipeline>) -> String {
    let generation = pipeline.and_then(|pipeline| pipeline.generate(&request()));
    generation.map_or_else(|error| error.to_string(), |generation| server::sha256(generation.images[0].rgb().as_raw()))
}

/// Stable Diffusion as diffusers saves it, and files that nobody needs. `half`: the name of the half-precision variant is in the place of the
/// plain one of these parts.
fn published(half: &[&str]) -> Files {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("ediffi-core/tests/fixtures/stable-diffusion");
    let mut files = Files::from([("README.md".to_owned(), b"unused".to_vec())]);
    let mut add = |name: String, file: &Path| files.insert(name, std::fs::read(file).unwrap());
    for part in ["scheduler", "text_encoder", "tokenizer"] {
        for file in std::fs::read_dir(fixtures.join("sd-1").join(part)).unwrap().flatten() {
            add(format!("{part}/{}", file.file_name().to_string_lossy()), &file.path());
        }
    }
    add("model_index.json".to_owned(), &fixtures.join("sd-1/model_index.json"));
    for (part, of) in [("unet", "unet-1"), ("vae", "vae")] {
        add(format!("{part}/config.json"), &fixtures.join(of).join("config.json"));
        add(format!("{part}/diffusion_pytorch_model.safetensors"), &fixtures.join(of).join("weights.safetensors"));
    }
    // The index of another part that is not read.
    let mut index: serde_json::Value = serde_json::from_slice(&files["model_index.json"]).unwrap();
    index["safety_checker"] = serde_json::json!(["stable_diffusion", "StableDiffusionSafetyChecker"]);
    files.insert("model_index.json".to_owned(), index.to_string().into_bytes());
    for unused in [
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "v1-5-pruned.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "text_encoder/pytorch_model.bin",
    ] {
        files.insert(unused.to_owned(), b"unused".to_vec());
    }
    for part in half {
        let stem = if *part == "text_encoder" { "model" } else { "diffusion_pytorch_model" };
        let weights = files[&format!("{part}/{stem}.safetensors")].clone();
        files.insert(format!("{part}/{stem}.fp16.safetensors"), weights);
    }
    files
}

/// What a folder of these files draws.
fn unpacked(files: &Files) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let builder = Pipeline::builder(folder.path()).device(DeviceChoice::Cpu).precision(Precision::F32);
    let drawn = drawn(builder.open());
    (folder, drawn)
}

/// Opens the model as the environment says. It is no test of its own: the others start it in a process of its own, since the
/// environment of a process cannot be changed safely while it runs.
#[test]
fn child() {
    let Ok(way) = std::env::var(CHILD) else { return };
    let named = |name: &str| HubPipeline::new(name).device(DeviceChoice::Cpu).precision(Precision::F32);
    let pipeline = match way.as_str() {
        "icons" => icons().and_then(Pipeline::open),
        "from_hub" => Pipeline::from_hub("org/name"),
        "half" => named("org/name")
            .precision(Precision::F16)
            .download()
            .and_then(|folder| Pipeline::builder(folder).device(DeviceChoice::Cpu).precision(Precision::F32).open()),
        "stopped" => {
            let stopped = named("org/name").watch(|_| ControlFlow::Break(()));
            stopped.builder().and_then(PipelineBuilder::open)
        }
        "located" => {
            let folder = ediffi::located("hub:org/name@main", DeviceChoice::Cpu, Precision::F32);
            folder
                .and_then(|folder| Pipeline::builder(folder).device(DeviceChoice::Cpu).precision(Precision::F32).open())
        }
        "watched" => {
            let heard = Arc::new(Mutex::new(Vec::new()));
            let told = Arc::clone(&heard);
            let model = named("org/name").watch(move |fetched| {
                assert_eq!((fetched.repository, fetched.have), ("org/name", fetched.size));
                told.lock().unwrap().push(fetched.file.to_owned());
                ControlFlow::Continue(())
            });
            let opened = model.builder().and_then(PipelineBuilder::open).map(drop);
            let mut heard = heard.lock().unwrap().clone();
            heard.sort();
            writeln!(std::io::stdout(), "says: {opened:?} {}", heard.join(" ")).unwrap();
            return;
        }
        name => named(name).builder().and_then(PipelineBuilder::open),
    };
    writeln!(std::io::stdout(), "says: {}", drawn(pipeline)).unwrap();
}

fn open(way: &str, cache: &Path, address: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    for variable in ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "EDIFFI_MODEL"] {
        command.env_remove(variable);
    }
    command.args(["child", "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, way);
    command.env("NO_PROXY", "127.0.0.1").env("HF_ENDPOINT", address).env("HF_HOME", cache);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| Some(line.split_once("says: ")?.1.to_owned())).unwrap_or(text)
}

#[test]
fn a_model_is_opened_by_name_and_draws_what_its_folder_draws() {
    let (server, address) = Server::of(files()).start();
    let cache = tempfile::tempdir().unwrap();
    let expected = drawn(Pipeline::open(MODEL));
    assert_eq!(expected.len(), 64, "{expected}");
    assert_eq!(open("from_hub", cache.path(), &address, &[]), expected);
    let requests = server.requests();
    let named = |request: &&String| request.contains("/revision/");
    assert_eq!(requests.iter().filter(named).count(), 1, "{requests:?}");
    for unused in ["README", ".bin"] {
        assert!(!requests.iter().any(|request| request.contains(unused)), "{unused}: {requests:?}");
    }
    // The variable names the same; all is there already.
    let variable = ("EDIFFI_MODEL", "hub:org/name");
    assert_eq!(open("icons", cache.path(), &address, &[variable]), expected);
    assert!(!server.requests().iter().any(|request| request.contains("/resolve/")));
    assert_eq!(open("icons", cache.path(), "http://127.0.0.1:9", &[variable, ("HF_HUB_OFFLINE", "1")]), expected);
    // All of it is of one commit.
    let snapshots = std::fs::read_dir(cache.path().join("hub/models--org--name/snapshots")).unwrap().flatten();
    assert_eq!(snapshots.map(|folder| folder.file_name()).collect::<Vec<_>>(), [FIRST]);
}

#[test]
fn the_variable_may_name_a_folder_and_without_it_the_checkout_is_taken() {
    let cache = tempfile::tempdir().unwrap();
    let icons = |variables: &[(&str, &str)]| open("icons", cache.path(), "http://127.0.0.1:9", variables);
    assert_eq!(icons(&[("EDIFFI_MODEL", MODEL)]), icons(&[]));
    let missing = icons(&[("EDIFFI_MODEL", "/nowhere/at/all")]);
    assert!(missing.contains("EDIFFI_MODEL=/nowhere/at/all"), "{missing}");
}

#[test]
fn a_file_that_the_repository_lacks_is_named_before_weights_come() {
    for missing in ["pipeline.json", "base/config.json", "sr1024/shared.safetensors"] {
        let mut files = files();
        files.remove(missing).unwrap();
        let (server, address) = Server::of(files).start();
        let cache = tempfile::tempdir().unwrap();
        let refused = open("from_hub", cache.path(), &address, &[]);
        assert!(refused.contains("org/name") && refused.contains(missing), "{refused}");
        let weights = |request: &String| request.contains("/base/") && request.contains("safetensors");
        assert!(!server.requests().iter().any(weights), "{missing}");
    }
}

/// What is read of a published model, in either precision.
const READ: [&str; 10] = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
];

/// The files that were sent.
fn sent(server: &Server) -> Vec<String> {
    let requests = server.requests();
    let sent = requests.iter().filter_map(|request| request.strip_prefix("GET /org/name/resolve/"));
    let mut sent: Vec<String> = sent.filter_map(|request| Some(request.split_once('/')?.1.trim().to_owned())).collect();
    sent.sort();
    sent
}

#[test]
fn a_published_model_is_opened_by_name() {
    let files = published(&["unet"]);
    let (_folder, expected) = unpacked(&files);
    assert_eq!(expected.len(), 64, "{expected}");
    let (server, address) = Server::of(files).start();
    let cache = tempfile::tempdir().unwrap();
    let offline = ("HF_HUB_OFFLINE", "1");
    let refused = open("org/name", cache.path(), &address, &[offline]);
    assert!(refused.contains("model_index.json") || refused.contains("refs/main"), "{refused}");
    assert_eq!(open("org/name", cache.path(), &address, &[]), expected);
    // In full precision the half one is a duplicate.
    assert_eq!(sent(&server), READ);
    assert_eq!(open("located", cache.path(), &address, &[]), expected);
    assert!(sent(&server).is_empty());
    assert_eq!(open("org/name", cache.path(), "http://127.0.0.1:9", &[offline]), expected);
    assert_eq!(open(&format!("org/name@{FIRST}"), cache.path(), "http://127.0.0.1:9", &[]), expected);
}

#[test]
fn of_two_precisions_one_is_downloaded() {
    let files = published(&["unet", "text_encoder"]);
    let (_folder, expected) = unpacked(&files);
    let (server, address) = Server::of(files).start();
    let cache = tempfile::tempdir().unwrap();
    // The half is that of the network and the encoder; the decoder has none.
    assert_eq!(open("half", cache.path(), &address, &[]), expected);
    let sent = sent(&server);
    for (wanted, there) in [
        ("unet/diffusion_pytorch_model.fp16.safetensors", true),
        ("unet/diffusion_pytorch_model.safetensors", false),
        ("text_encoder/model.fp16.safetensors", true),
        ("text_encoder/model.safetensors", false),
        ("vae/diffusion_pytorch_model.safetensors", true),
    ] {
        assert_eq!(sent.contains(&wanted.to_owned()), there, "{wanted}: {sent:?}");
    }
}

#[test]
fn a_download_is_told_of_and_stopped() {
    let (server, address) = Server::of(published(&[])).start();
    let cache = tempfile::tempdir().unwrap();
    let stopped = open("stopped", cache.path(), &address, &[]);
    assert_eq!(stopped, "cancelled");
    assert_eq!(sent(&server), READ[..1]);
    assert_eq!(open("watched", cache.path(), &address, &[]), format!("Ok(()) {}", READ[1..].join(" ")));
    assert_eq!(open("watched", cache.path(), &address, &[]), "Ok(()) ");
}

#[test]
fn what_cannot_be_drawn_is_refused_before_weights_come() {
    let flux = |files: &mut Files| {
        let index = String::from_utf8(files["model_index.json"].clone()).unwrap();
        files.insert(
            "model_index.json".to_owned(),
            index.replace("StableDiffusionPipeline", "FluxPipeline").into_bytes(),
        );
    };
    let pickled = |files: &mut Files| drop(files.remove("unet/diffusion_pytorch_model.safetensors"));
    let without = |files: &mut Files| drop(files.remove("scheduler/scheduler_config.json"));
    type Spoil = fn(&mut Files);
    let spoils: [(Spoil, &str); 3] = [
        (flux, "holds a `FluxPipeline`, FLUX"),
        (pickled, "no unet/diffusion_pytorch_model.safetensors"),
        (without, "scheduler/scheduler_config.json"),
    ];
    for (spoil, words) in spoils {
        let mut files = published(&[]);
        spoil(&mut files);
        let (server, address) = Server::of(files).start();
        let cache = tempfile::tempdir().unwrap();
        let refused = open("org/name", cache.path(), &address, &[]);
        assert!(refused.contains(words), "{refused}");
        assert!(!sent(&server).iter().any(|file| file.starts_with("unet/diffusion")), "{words}");
    }
}
