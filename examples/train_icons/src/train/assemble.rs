//! Putting the trained networks together into a model folder.

use std::path::Path;

use serde_json::{Value, json};

use super::base::Part;
use super::clip::write_json;
use super::lineage::Lineage;
use super::{Result, super_resolution};

/// Files of the model besides the stages' and `pipeline.json`.
const ENCODERS: [&str; 7] = [
    "t5/config.json",
    "t5/tokenizer.json",
    "t5/model.safetensors",
    "clip/config.json",
    "clip/tokenizer.json",
    "clip/preprocessor_config.json",
    "clip/model.safetensors",
];

/// Where every stage stops, with one last estimate: what is left then is far below what an eye sees.
pub const SIGMA_MIN: f64 = 0.05;

/// Copies what `model` holds to `out` and writes its `pipeline.json`. A network that was trained beside another CLIP or T5
/// is refused before anything is copied.
pub fn assemble(model: &Path, out: &Path) -> Result<()> {
    let mut files: Vec<String> = ENCODERS.map(str::to_owned).to_vec();
    let experts: Vec<Value> = [Part::High, Part::Middle, Part::Low]
        .into_iter()
        .map(|part| {
            let weights = format!("base/{}.safetensors", part.name());
            files.push(weights.clone());
            Ok(json!({ "weights": weights, "sigma": part.interval()? }))
        })
        .collect::<Result<_>>()?;
    files.push("base/config.json".to_owned());
    let mut stages = vec![stage("base", 64, experts, (20, 80.0), 3.0)];
    for (name, size, steps) in [("sr256", 256, 8), ("sr1024", 1024, 6)] {
        let weights = format!("{name}/weights.safetensors");
        let expert = json!({ "weights": weights, "sigma": [0.0, null] });
        files.extend([weights, format!("{name}/config.json")]);
        stages.push(stage(name, size, vec![expert], (steps, super_resolution::SIGMA_MAX), 1.0));
    }
    let lineage = Lineage::default().with_encoders(model)?;
    for file in &files {
        let encoder = ENCODERS.contains(&file.as_str());
        if !encoder && file.ends_with(".safetensors") {
            lineage.check(&model.join(file))?;
        }
    }
    for file in &files {
        let target = out.join(file);
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let temporary = target.with_extension("tmp");
        std::fs::copy(model.join(file), &temporary).map_err(|e| format!("{}: {e}", model.join(file).display()))?;
        std::fs::rename(temporary, target)?;
    }
    let pipeline = json!({
        "format": "ediffi-pipeline/1",
        "encoders": { "t5": "t5", "clip": "clip" },
        "stages": stages,
    });
    write_json(&out.join("pipeline.json"), &pipeline)
}

fn stage(name: &str, size: i64, experts: Vec<Value>, (steps, sigma_max): (usize, f64), scale: f64) -> Value {
    json!({
        "name": name,
        "size": size,
        "network": format!("{name}/config.json"),
        "precondition": { "sample": { "sigma_data": 0.5 } },
        "experts": experts,
        "sampler": {
            "solver": "dpmpp-2m",
            "steps": steps,
            "schedule": { "karras": { "min": SIGMA_MIN, "max": sigma_max, "rho": 7.0 } },
        },
        "guidance": { "scale": scale },
    })
}
