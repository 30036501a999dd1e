//! Image to image and inpainting beside diffusers'.

use std::collections::VecDeque;

use ediffi::{Edit, EditPicture, Guidance, NoiseSource, Request, RgbImage, Schedule, Solver, Tensor, Thresholding};

use crate::{PROMPT, Recorded, Tensors, base, difference, fixture, worst_pixel};

fn recorded() -> Tensors {
    Tensor::read_safetensors(fixture("edit.safetensors")).unwrap().into_iter().collect()
}

/// Levels [1, channels, h, w] as the file of a picture.
fn picture(levels: &Tensor) -> EditPicture {
    let (_, _, height, width) = levels.size4().unwrap();
    let rgb = levels.expand([1, 3, height, width], false).squeeze_dim(0).permute([1, 2, 0]).contiguous();
    let bytes: Vec<u8> = Vec::try_from(rgb.flatten(0, -1)).unwrap();
    EditPicture::new(&RgbImage::from_raw(width as u32, height as u32, bytes).unwrap()).unwrap()
}

fn is_drawn(request: &Request, noises: &[&Tensor], expected: &Tensor) {
    let pipeline = base().open().unwrap();
    let embeddings = pipeline.encode(request).unwrap();
    let mut noise = |_: &str, _: &[u64]| -> Box<dyn NoiseSource> {
        Box::new(Recorded(noises.iter().map(|noise| noise.shallow_clone()).collect::<VecDeque<_>>()))
    };
    let drawn = pipeline.sample_from(&embeddings, request, &mut noise, &mut ()).unwrap();
    let found = difference(&drawn.images[0].tensor().unwrap(), &expected.squeeze_dim(0));
    assert!(found < 1e-3, "{found:.1e}");
    assert!(worst_pixel(&drawn, expected) <= 1.0);
}

/// Strength 0.7 of 6 steps are the last 4.
#[test]
fn image_to_image_is_that_of_diffusers() {
    let io = recorded();
    let noises: Vec<_> = (0..).map_while(|i| io.get(&format!("noise_{i}"))).collect();
    assert_eq!(noises.len(), 4, "that of the start, and those of all steps but the last");
    let edit = Edit::new(picture(&io["levels"])).strength(0.7);
    let request = Request::new(PROMPT).negative_prompt("photos").size(24, 16).steps("base", 6).edit(edit);
    is_drawn(&request, &noises, &io["image_to_image"]);
}

#[test]
fn inpainting_is_that_of_diffusers() {
    let io = recorded();
    let edit = Edit::new(picture(&io["levels"])).mask(picture(&io["mask"])).strength(0.9);
    let request = Request::new(PROMPT)
        .negative_prompt("photos")
        .size(24, 16)
        .solver("base", Solver::Euler)
        .schedule("base", Schedule::Leading)
        .steps("base", 6)
        .guidance_rule("base", Guidance { thresholding: Thresholding::Static, ..Guidance::new(3.0) })
        .edit(edit);
    is_drawn(&request, &[&io["inpaint_noise"]], &io["inpainted"]);
}
