//! Draws one small picture into the file that is named, and prints where the libtorch is that this program has found.

use std::error::Error;
use std::path::Path;

use ediffi::{Pipeline, Request};
// Built, too, though nothing is trained here.
use ediffi_cluster as _;
use ediffi_train as _;

fn main() -> Result<(), Box<dyn Error>> {
    let out = std::env::args_os().nth(1).ok_or("usage: downstream OUT.png")?;
    let request = Request::new("a red apple, noto style").seed(7).last_stage("base").steps("base", 2);
    let generation = Pipeline::open(ediffi::icons()?)?.generate(&request)?;
    generation.images.first().ok_or("no picture")?.save(&out)?;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let library = maps.lines().filter_map(|line| Some(Path::new(line.get(line.find('/')?..)?)));
    let library = library.into_iter().find(|path| path.file_name().is_some_and(|name| name == "libtorch_cpu.so"));
    println!("{}", library.and_then(Path::parent).ok_or("no libtorch is mapped")?.display());
    Ok(())
}
