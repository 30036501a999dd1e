//! `ediffi models`: what a model has.

use clap::Args;
use ediffi::SamplerSettings;
use serde_json::json;

use super::failure::Failure;
use super::model::Model;
use super::output::say;

/// Say what stages, experts and presets a model has.
#[derive(Args)]
pub(crate) struct Models {
    /// Write the manifest as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: Model,
}

impl Models {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let pipeline = self.model.open()?;
        let manifest = pipeline.manifest();
        if self.json {
            return say(&json!(manifest).to_string());
        }
        say(&pipeline.folder().display().to_string())?;
        if let Some(SamplerSettings { solver, steps, guidance, .. }) = pipeline.prior() {
            say(&format!("stage prior: image embeddings, {solver}, {steps} steps, guidance {}", guidance.scale))?;
        }
        for stage in &manifest.stages {
            let SamplerSettings { solver, steps, guidance, .. } = &stage.settings;
            let (name, size, scale) = (&stage.name, stage.size, guidance.scale);
            say(&format!("stage {name}: {size}x{size} pixels, {solver}, {steps} steps, guidance {scale}"))?;
            for expert in &stage.experts {
                let said = expert.interval.map(|said| format!(" ({said})")).unwrap_or_default();
                say(&format!("  {}: sigma {}{said}", expert.weights.display(), expert.sigma))?;
            }
        }
        for (name, preset) in &manifest.presets {
            say(&format!("preset {name}: {}", preset.about))?;
        }
        Ok(())
    }
}
