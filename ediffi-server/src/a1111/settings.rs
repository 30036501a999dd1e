//! The fields of A1111's interface: what each does, and which do nothing.

use ediffi::Solver;
use serde_json::value::RawValue;

use super::names::{self, Scheduler};
use crate::fields::{Fields, Raw, Wrong};
use crate::partial::{Partial, random_seed};

/// Fields that change nothing: nothing is saved on the server, and settings of a request end with it.
const WITHOUT_EFFECT: [&str; 22] = [
    "do_not_save_samples",
    "do_not_save_grid",
    "save_images",
    "override_settings_restore_afterwards",
    "disable_extra_networks",
    "comments",
    "force_task_id",
    "infotext",
    "script_args",
    // Without `enable_hr` these change nothing in A1111, either.
    "hr_scale",
    "hr_upscaler",
    "hr_second_pass_steps",
    "hr_resize_x",
    "hr_resize_y",
    "hr_checkpoint_name",
    "hr_sampler_name",
    "hr_scheduler",
    "hr_prompt",
    "hr_negative_prompt",
    // Without `subseed_strength`, and without a refiner.
    "subseed",
    "refiner_switch_at",
    // Of networks that see the picture beside the noise.
    "image_cfg_scale",
];

/// Fields that ask for what there is not, unless they are 0, false or empty.
const REFUSED: [(&str, &str); 15] = [
    ("refiner_checkpoint", "the experts of a model refine its pictures"),
    ("enable_hr", "the stages of a model enlarge its pictures"),
    ("firstphase_width", "the stages of a model enlarge its pictures"),
    ("firstphase_height", "the stages of a model enlarge its pictures"),
    ("restore_faces", "there is no such network"),
    ("tiling", "pictures that repeat cannot be drawn"),
    ("styles", "write the style into the prompt, or take it from pictures with `ediffi.style`"),
    ("subseed_strength", "a picture has one seed"),
    ("seed_resize_from_w", "a picture has one seed"),
    ("seed_resize_from_h", "a picture has one seed"),
    ("s_churn", "`ediffi.stages` can say `{\"solver\": {\"heun\": {\"s_churn\": ..}}}`"),
    ("s_tmin", "`ediffi.stages` can say `{\"solver\": {\"heun\": {\"s_tmin\": ..}}}`"),
    ("s_min_uncond", "`ediffi.stages` can say at which noise levels `guidance` acts"),
    ("script_name", "there are no scripts"),
    ("alwayson_scripts", "there are no scripts"),
];

/// Fields that may have no other value than this.
const ONLY: [(&str, f64); 3] = [("eta", 1.0), ("s_noise", 1.0), ("initial_noise_multiplier", 1.0)];

/// The longest side that is read; the limits of the server are lower.
const LONGEST_SIDE: i64 = 1 << 16;

/// The fields of a request, but for the picture that it begins with.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) prompt: String,
    pub(super) negative_prompt: String,
    pub(super) seed: u64,
    /// Of each round.
    pub(super) batch_size: usize,
    pub(super) rounds: usize,
    pub(super) steps: Option<usize>,
    pub(super) guidance: Option<f64>,
    pub(super) width: Option<u32>,
    pub(super) height: Option<u32>,
    pub(super) solver: Option<Solver>,
    pub(super) scheduler: Scheduler,
    /// The model.
    pub(super) checkpoint: Option<String>,
    pub(super) strength: Option<f64>,
    /// Whether the answer has the pictures.
    pub(super) send_images: bool,
    pub(super) partial: Partial,
    /// As it came, without pictures: A1111 sends it back.
    pub(super) parameters: Raw,
}

impl Settings {
    pub(super) fn read(mut fields: Fields) -> Result<Self, Wrong> {
        let parameters = fields.rest().clone();
        let taken = [
            ("prompt", "prompt"),
            ("negative_prompt", "negative_prompt"),
            ("seed", "seed"),
            ("images", "batch_size"),
            ("width", "width"),
            ("height", "height"),
            ("edit", "init_images"),
        ];
        let partial = Partial::read(&mut fields, &taken, false)?;
        // Both are the same; `sampler_index` is the older name.
        let (older, newer) = (fields.text("sampler_index")?, fields.text("sampler_name")?);
        let sampler = newer.or(older).filter(|name| !name.is_empty());
        let sampler = sampler.map(|name| names::sampler(&name)).transpose()?;
        let scheduler = fields.text("scheduler")?.filter(|name| !name.is_empty());
        let scheduler = scheduler.map(|name| Scheduler::of(&name)).transpose()?;
        let of_sampler = sampler.and_then(|(_, scheduler)| scheduler);
        let scheduler = scheduler.filter(|scheduler| *scheduler != Scheduler::Automatic).or(of_sampler);
        let seed = fields.integer("seed", -1..=i64::MAX)?.and_then(|seed| u64::try_from(seed).ok());
        let settings = Self {
            prompt: fields.text("prompt")?.unwrap_or_default(),
            negative_prompt: fields.text("negative_prompt")?.unwrap_or_default(),
            seed: seed.unwrap_or_else(random_seed),
            batch_size: whole(fields.integer("batch_size", 1..=1000)?).unwrap_or(1),
            rounds: whole(fields.integer("n_iter", 1..=1000)?).unwrap_or(1),
            steps: whole(fields.integer("steps", 1..=10_000)?),
            guidance: fields.number("cfg_scale", 0.0..=1000.0)?,
            width: whole(fields.integer("width", 1..=LONGEST_SIDE)?),
            height: whole(fields.integer("height", 1..=LONGEST_SIDE)?),
            solver: sampler.map(|(solver, _)| solver),
            scheduler: scheduler.unwrap_or(Scheduler::Automatic),
            checkpoint: checkpoint(&mut fields)?,
            strength: fields.number("denoising_strength", 0.0..=1.0)?,
            send_images: fields.flag("send_images")?.unwrap_or(true),
            partial,
            parameters,
        };
        if let Some(tmax) = fields.number("s_tmax", 0.0..=f64::MAX)?.filter(|tmax| *tmax > 0.0) {
            return Err(Wrong::value("s_tmax", format!("`s_tmax` is {tmax}: there is no churn that it could bound")));
        }
        for (name, only) in ONLY {
            // A solver without fresh noise has none for `eta` to scale.
            let quiet = settings.solver.is_some_and(|solver| Solver::deterministic().any(|other| other == solver));
            let value = fields.number(name, 0.0..=f64::MAX)?;
            if value.is_some_and(|value| value != only && !(name == "eta" && value == 0.0 && quiet)) {
                return Err(Wrong::value(name, format!("`{name}` can only be {only} here")));
            }
        }
        fields.without_effect(&WITHOUT_EFFECT);
        fields.refuse(&REFUSED)?;
        fields.finish()?;
        Ok(settings)
    }
}

fn whole<T: TryFrom<i64>>(number: Option<i64>) -> Option<T> {
    number.and_then(|number| T::try_from(number).ok())
}

/// The model of `override_settings`, the only one of A1111's settings that there is.
fn checkpoint(fields: &mut Fields) -> Result<Option<String>, Wrong> {
    let mut settings = fields.object("override_settings")?.unwrap_or_default();
    let found = chosen(settings.remove("sd_model_checkpoint"))?;
    match settings.keys().next() {
        None => Ok(found),
        Some(name) => {
            let name: String = name.chars().take(100).collect();
            let message = format!("there is no setting `{name}`, only `sd_model_checkpoint`");
            Err(Wrong::value(&format!("override_settings.{name}"), message))
        }
    }
}

/// A model that is chosen by name.
pub(super) fn chosen(value: Option<Box<RawValue>>) -> Result<Option<String>, Wrong> {
    let name = value.map(|value| serde_json::from_str::<Option<String>>(value.get())).transpose();
    let name = name.map_err(|_| Wrong::value("sd_model_checkpoint", "`sd_model_checkpoint` has to be a text"))?;
    Ok(name.flatten().filter(|name| !name.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Settings, Wrong> {
        Settings::read(Fields::of_json(json.as_bytes()).unwrap())
    }

    #[test]
    fn each_field_is_read() {
        let settings = read(
            r#"{"prompt": "a cat", "negative_prompt": "blur", "seed": 7, "batch_size": 2, "n_iter": 3, "steps": 5, "cfg_scale": 4.5,
            "width": 512, "height": 256, "sampler_name": "DPM++ 2M Karras", "sampler_index": "Euler", "scheduler": "automatic",
            "override_settings": {"sd_model_checkpoint": "icons"}, "denoising_strength": 0.4, "send_images": false,
            "enable_hr": false, "hr_upscaler": "Latent", "eta": 0, "s_churn": 0, "refiner_checkpoint": "", "alwayson_scripts": {}}"#,
        )
        .unwrap();
        assert_eq!((settings.prompt.as_str(), settings.negative_prompt.as_str(), settings.seed), ("a cat", "blur", 7));
        assert_eq!((settings.batch_size, settings.rounds, settings.steps), (2, 3, Some(5)));
        assert_eq!((settings.guidance, settings.width, settings.height), (Some(4.5), Some(512), Some(256)));
        assert_eq!((settings.solver, settings.scheduler), (Some(Solver::DpmPp2M), Scheduler::Karras));
        assert_eq!(
            (settings.checkpoint.as_deref(), settings.strength, settings.send_images),
            (Some("icons"), Some(0.4), false)
        );
        // A seed by chance.
        assert!(read(r#"{"seed": -1}"#).unwrap().seed != read(r#"{"seed": -1}"#).unwrap().seed);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (json, field) in [
            (r#"{"sampler_name": "UniPC"}"#, "sampler_name"),
            (r#"{"scheduler": "uniform"}"#, "scheduler"),
            (r#"{"steps": 0}"#, "steps"),
            (r#"{"steps": "5"}"#, "steps"),
            (r#"{"seed": -2}"#, "seed"),
            (r#"{"enable_hr": true}"#, "enable_hr"),
            (r#"{"refiner_checkpoint": "x"}"#, "refiner_checkpoint"),
            (r#"{"styles": ["x"]}"#, "styles"),
            (r#"{"subseed_strength": 0.5}"#, "subseed_strength"),
            (r#"{"alwayson_scripts": {"ControlNet": {"args": [{"module": "canny"}]}}}"#, "alwayson_scripts"),
            (r#"{"eta": 0.5}"#, "eta"),
            (r#"{"eta": 0, "sampler_name": "Euler a"}"#, "eta"),
            (r#"{"s_noise": 1.1}"#, "s_noise"),
            (r#"{"s_tmax": 3}"#, "s_tmax"),
            (r#"{"override_settings": {"CLIP_stop_at_last_layers": 2}}"#, "override_settings.CLIP_stop_at_last_layers"),
            (r#"{"promtp": "a cat"}"#, "promtp"),
            (r#"{"ediffi": {"seed": 3}}"#, "ediffi.seed"),
        ] {
            let wrong = read(json).unwrap_err();
            assert_eq!(wrong.field.as_deref(), Some(field), "{json}: {}", wrong.message);
        }
    }
}
