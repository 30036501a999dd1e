//! What A1111 tells of pictures that were drawn: `info`, a text of JSON.

use ediffi::StagePlan;
use serde_json::{Value, json};

use super::names;
use super::settings::Settings;
use crate::job::{Job, JobImage};

/// What was drawn.
#[derive(Debug)]
pub(super) struct Drawn<'a> {
    pub(super) settings: &'a Settings,
    pub(super) job: &'a Job,
    /// The plan of the first stage.
    pub(super) first: Option<&'a StagePlan>,
    /// Of an edit.
    pub(super) strength: Option<Option<f64>>,
}

impl Drawn<'_> {
    fn steps(&self) -> usize {
        self.first.map_or(0, |first| first.settings.steps)
    }

    fn guidance(&self) -> f64 {
        self.first.map_or(1.0, |first| first.settings.guidance.scale)
    }

    fn sampler(&self) -> String {
        self.first.map_or_else(String::new, |first| names::name(first.settings.solver))
    }

    fn strength(&self) -> Option<f64> {
        self.strength.flatten()
    }

    /// A picture in the words that A1111 writes into its files.
    fn line(&self, image: &JobImage) -> String {
        let Settings { prompt, negative_prompt, scheduler, .. } = self.settings;
        let negative =
            if negative_prompt.is_empty() { String::new() } else { format!("\nNegative prompt: {negative_prompt}") };
        let strength = self.strength().map_or_else(String::new, |strength| format!(", Denoising strength: {strength}"));
        format!(
            "{prompt}{negative}\nSteps: {}, Sampler: {}, Schedule type: {}, CFG scale: {}, Seed: {}, Size: {}x{}, Model: {}{strength}, \
             Version: ediffi {}",
            self.steps(),
            self.sampler(),
            scheduler.label(),
            self.guidance(),
            image.seed,
            image.width,
            image.height,
            self.job.model,
            env!("CARGO_PKG_VERSION"),
        )
    }
}

/// The text.
pub(super) fn text(drawn: &Drawn<'_>) -> String {
    let Drawn { settings, job, .. } = drawn;
    let mut images: Vec<&JobImage> = job.images.iter().collect();
    images.sort_unstable_by_key(|image| image.index);
    let seeds: Vec<u64> = images.iter().map(|image| image.seed).collect();
    let each = |text: &str| vec![text.to_owned(); images.len()];
    let first = images.first();
    let told: Value = json!({
        "prompt": settings.prompt,
        "all_prompts": each(&settings.prompt),
        "negative_prompt": settings.negative_prompt,
        "all_negative_prompts": each(&settings.negative_prompt),
        "seed": settings.seed,
        "all_seeds": seeds,
        "subseed": settings.seed,
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "width": first.map(|image| image.width),
        "height": first.map(|image| image.height),
        "sampler_name": drawn.sampler(),
        "cfg_scale": drawn.guidance(),
        "steps": drawn.steps(),
        "batch_size": settings.batch_size,
        "restore_faces": false,
        "face_restoration_model": null,
        "sd_model_name": job.model,
        "sd_model_hash": null,
        "sd_vae_name": null,
        "sd_vae_hash": null,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": drawn.strength(),
        "extra_generation_params": { "Schedule type": settings.scheduler.label() },
        "index_of_first_image": 0,
        "infotexts": images.iter().map(|image| drawn.line(image)).collect::<Vec<_>>(),
        "styles": [],
        "job_timestamp": timestamp(job.created),
        "clip_skip": 1,
        "is_using_inpainting_conditioning": false,
        "version": concat!("ediffi ", env!("CARGO_PKG_VERSION")),
    });
    told.to_string()
}

/// Seconds since 1970 as A1111 writes a time, of UTC: `20240131235959`.
pub(super) fn timestamp(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days of years that begin with March, so that the odd day is the last one (Hinnant's `civil_from_days`).
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}{month:02}{of_month:02}{:02}{:02}{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_a1111_does() {
        assert_eq!(timestamp(0.0), "19700101000000");
        assert_eq!(timestamp(951_827_696.9), "20000229123456");
        assert_eq!(timestamp(1_704_067_199.0), "20231231235959");
    }
}
