//! What weights take in memory, before they are loaded.

use ediffi::{Pipeline, Precision, Request};

use super::checkpoint::{Named, Single, read};
use super::folders::Folder;

/// What the weights take is what the files hold of them; a file that holds everything is counted once.
#[test]
fn the_memory_of_weights_is_known_before_they_are_loaded() {
    let bytes = |pipeline: &Pipeline, part: &str| -> u64 {
        let parts = pipeline.memory(&Request::new("a cat")).unwrap();
        parts.iter().filter(|own| own.part == part).map(|own| own.bytes).sum()
    };
    let held = |named: &Named, wanted: fn(&str) -> bool| -> u64 {
        4 * named.iter().filter(|(name, _)| wanted(name)).map(|(_, x)| x.numel() as u64).sum::<u64>()
    };
    let folder = Folder::base();
    let own = folder.open();
    let all = |_: &str| true;
    let network = held(&read(&folder, "unet/diffusion_pytorch_model.safetensors"), all);
    let decodes = |name: &str| name.starts_with("decoder.") || name.starts_with("post_quant_conv.");
    let decoder = held(&read(&folder, "vae/diffusion_pytorch_model.safetensors"), decodes);
    assert_eq!((bytes(&own, "base"), bytes(&own, "base decoder")), (network, decoder));
    let text: u64 = ["text_encoder", "text_encoder_2"]
        .map(|part| {
            let held = held(&read(&folder, &format!("{part}/model.safetensors")), all);
            assert_eq!(bytes(&own, part), held, "{part}");
            held
        })
        .iter()
        .sum();
    let half = folder.builder().precision(Precision::Bf16).open().unwrap();
    assert_eq!(2 * bytes(&half, "base"), network);

    let single = Single::base();
    let file = single.builder().like(single.folder.path()).open().unwrap();
    assert_eq!((bytes(&file, "base"), bytes(&file, "base decoder")), (network, decoder));
    // The temperature of OpenCLIP, and a number that nobody reads.
    assert_eq!(bytes(&file, "text encoders"), text + 2 * 4);
    let parts: Vec<String> = file.memory(&Request::new("a cat")).unwrap().into_iter().map(|part| part.part).collect();
    assert_eq!(parts, ["text encoders", "base", "base decoder"]);
}
