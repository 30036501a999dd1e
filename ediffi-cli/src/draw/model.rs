//! Which model, and how it computes.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use ediffi::{
    DeviceChoice, ExpertInterval, Limits, Lora, MANIFEST_FILE, Manifest, Pipeline, PipelineBuilder, Precision,
    Residency, Runtime,
};

use super::failure::Failure;
use super::limits::Allowed;
use super::located::located;

/// Which model, and how it computes.
#[derive(Args)]
pub(super) struct Model {
    /// Its folder (default: $EDIFFI_MODEL, or the shipped model).
    ///
    /// Or hub:OWNER/NAME; or with --like a checkpoint, which is one of Stable Diffusion in one file.
    #[arg(long, value_name = "FOLDER", help_heading = "Model")]
    model: Option<PathBuf>,
    /// An expert for a part of the noise, as timesteps:..200=FOLDER.
    ///
    /// It is another published folder, and there may be several. The part is LOW..HIGH, of which either end may be missing, in one of
    /// these units: sigma, timesteps, snr, log-snr, fraction (of the schedule that is done; fraction:0.8.. is what is left after 0.8 of
    /// it) or steps (counted from 0; steps:-5.. are the last five).
    #[arg(long, value_name = "INTERVAL=FOLDER", value_parser = expert, help_heading = "Model")]
    expert: Vec<(ExpertInterval, PathBuf)>,
    /// A folder of a model like it, for a checkpoint of one file.
    ///
    /// The checkpoint takes configurations and tokenizers from there. May be repeated.
    #[arg(long, value_name = "FOLDER", help_heading = "Model")]
    like: Vec<PathBuf>,
    /// Where to compute: auto, cpu, cuda, cuda:1.
    #[arg(long, default_value = "auto", value_parser = device, help_heading = "Model")]
    device: DeviceChoice,
    #[command(flatten)]
    computing: Computing,
}

/// How a model computes, wherever that is.
#[derive(Args)]
pub(super) struct Computing {
    /// What is computed in: auto, f32, bf16 or f16.
    ///
    /// auto takes what suits the device best.
    #[arg(long, value_enum, default_value_t, hide_possible_values = true, help_heading = "Model")]
    precision: Numbers,
    /// Experts in memory: all, relay, relay-prefetch.
    ///
    /// all of them stay; with relay there is one at a time; with relay-prefetch the next is loaded meanwhile.
    #[arg(long, value_enum, default_value_t, hide_possible_values = true, help_heading = "Model")]
    residency: Held,
    /// A LoRA to merge in, this strongly, as style.safetensors=0.8.
    ///
    /// For one expert as style.safetensors@high=0.8. It is merged into a model of Stable Diffusion, or into the first stage of one of ediffi's
    /// own. An expert is called as its weights are, `high` for base/high.safetensors, or by its number: from the highest noise down; of
    /// published folders 0 is the model's and 1 the first --expert's.
    #[arg(long, value_name = "FILE[@EXPERT][=SCALE]", value_parser = lora, help_heading = "Model")]
    lora: Vec<Merged>,
    #[command(flatten)]
    allowed: Allowed,
}

/// A LoRA, and the expert that it is for, if not for all.
#[derive(Debug, Clone, PartialEq)]
struct Merged {
    lora: Lora,
    expert: Option<String>,
}

impl Merged {
    /// The number of its expert in the model of a folder, as the library counts them.
    fn number(&self, folder: &Path) -> Result<Option<usize>, Failure> {
        let Some(expert) = &self.expert else { return Ok(None) };
        let names: Vec<String> = if folder.join(MANIFEST_FILE).is_file() {
            let stages = Manifest::read(folder)?.stages;
            let experts = stages.first().map(|stage| stage.experts.iter()).into_iter().flatten();
            experts.filter_map(|expert| Some(expert.weights.file_stem()?.to_string_lossy().into_owned())).collect()
        } else {
            Vec::new()
        };
        let number = expert.parse::<usize>().ok().filter(|number| names.is_empty() || *number < names.len());
        if let Some(number) = names.iter().position(|name| name == expert).or(number) {
            return Ok(Some(number));
        }
        let reason = if names.is_empty() {
            format!(
                "there is no expert `{expert}`: 0 is the network of the model's folder, 1 that of the first --expert"
            )
        } else {
            format!("there is no expert `{expert}`: the first stage has {}", names.join(", "))
        };
        Err(Failure::usage(format!("--lora {}: {reason}", self.lora.path().display())))
    }
}

/// [`Precision`] as an option.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(super) enum Numbers {
    #[default]
    Auto,
    F32,
    Bf16,
    F16,
}

impl From<Numbers> for Precision {
    fn from(numbers: Numbers) -> Self {
        match numbers {
            Numbers::Auto => Self::Auto,
            Numbers::F32 => Self::F32,
            Numbers::Bf16 => Self::Bf16,
            Numbers::F16 => Self::F16,
        }
    }
}

/// [`Residency`] as an option.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Held {
    /// All of them stay.
    #[default]
    All,
    /// One at a time.
    Relay,
    /// One at a time, while the next is loaded.
    RelayPrefetch,
}

impl Model {
    /// The model, computing where the options say.
    pub(super) fn builder(&self) -> Result<PipelineBuilder, Failure> {
        self.builder_on(self.device)
    }

    /// The model on a device of its own, where the options leave that open: of several processes each has one.
    pub(super) fn builder_on(&self, device: DeviceChoice) -> Result<PipelineBuilder, Failure> {
        let device = if self.device == DeviceChoice::Auto { device } else { self.device };
        let precision = self.computing.precision();
        let folder = match &self.model {
            Some(named) => located(named.as_os_str(), device, precision)?,
            None => ediffi::icons()?,
        };
        let builder = self.computing.builder(folder)?.device(device);
        let mut likes = self.like.iter().map(|named| located(named.as_os_str(), device, precision));
        let builder = likes.try_fold(builder, |builder, like| Ok::<_, Failure>(builder.like(like?)))?;
        self.expert.iter().try_fold(builder, |builder, (interval, named)| {
            Ok(builder.expert(*interval, located(named.as_os_str(), device, precision)?))
        })
    }

    /// Where and in what numbers it computes. No model is asked.
    pub(super) fn runtime(&self) -> ediffi_core::Result<Runtime> {
        Runtime::new(self.device, self.computing.precision())
    }

    /// Whether the numbers are those that suit the device best.
    pub(super) fn chooses_precision(&self) -> bool {
        self.computing.precision() == Precision::Auto
    }

    pub(super) fn open(&self) -> Result<Pipeline, Failure> {
        Ok(self.builder()?.open()?)
    }
}

impl Computing {
    fn precision(&self) -> Precision {
        self.precision.into()
    }

    /// Limits with those that are said in the place of their own.
    pub(super) fn limits(&self, of: &Limits) -> Result<Limits, Failure> {
        self.allowed.limits(of)
    }

    /// The model of a folder, computing so.
    pub(super) fn builder(&self, folder: PathBuf) -> Result<PipelineBuilder, Failure> {
        let residency = match self.residency {
            Held::All => Residency::All,
            Held::Relay => Residency::Relay,
            Held::RelayPrefetch => Residency::RelayPrefetch,
        };
        let builder = Pipeline::builder(&folder).precision(self.precision()).residency(residency);
        let builder = builder.limits(self.limits(&Limits::default())?);
        self.lora.iter().try_fold(builder, |builder, merged| {
            let lora = merged.lora.clone();
            Ok(match merged.number(&folder)? {
                Some(expert) => builder.lora_of_expert(expert, lora),
                None => builder.lora(lora),
            })
        })
    }
}

/// A file, behind its last `@` an expert, and behind its last `=` a number. A name with another `=` in it is a name, and so is that of a file
/// with an `@` that is there.
fn lora(text: &str) -> Result<Merged, String> {
    let scaled = text.rsplit_once('=').and_then(|(file, scale)| Some((file, scale.parse::<f64>().ok()?)));
    let (named, scale) = scaled.map_or((text, None), |(named, scale)| (named, Some(scale)));
    if let Some(scale) = scale.filter(|scale| !scale.is_finite()) {
        return Err(format!("the scale {scale} is not finite"));
    }
    let is_expert = |(file, expert): &(&str, &str)| {
        !file.is_empty() && !expert.is_empty() && !expert.contains(['/', '\\', '.']) && !Path::new(named).exists()
    };
    let parts = named.rsplit_once('@').filter(is_expert);
    let (file, expert) = parts.map_or((named, None), |(file, expert)| (file, Some(expert.to_owned())));
    let lora = Lora::new(file);
    Ok(Merged { lora: scale.map_or(lora.clone(), |scale| lora.scale(scale)), expert })
}

/// The noise levels of an expert, and behind the first `=` its folder.
fn expert(text: &str) -> Result<(ExpertInterval, PathBuf), String> {
    let parts = text.split_once('=').filter(|(_, folder)| !folder.is_empty());
    let (interval, folder) = parts.ok_or("expected INTERVAL=FOLDER")?;
    Ok((interval.parse().map_err(|error: ediffi_core::Error| error.to_string())?, folder.into()))
}

pub(super) fn device(text: &str) -> Result<DeviceChoice, String> {
    match text {
        "auto" => Ok(DeviceChoice::Auto),
        "cpu" => Ok(DeviceChoice::Cpu),
        "cuda" => Ok(DeviceChoice::Cuda(0)),
        _ => {
            let number = text.strip_prefix("cuda:").and_then(|number| number.parse().ok());
            number.map(DeviceChoice::Cuda).ok_or_else(|| "expected auto, cpu, cuda or cuda:NUMBER".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expert_is_an_interval_and_a_folder() {
        let found = expert("timesteps:..200=a=b/refiner").unwrap();
        assert_eq!(found, (ExpertInterval::timesteps(..200), PathBuf::from("a=b/refiner")));
        assert!(expert("timesteps:..200").unwrap_err().contains("INTERVAL=FOLDER"));
        assert!(expert("colour:1..=a").unwrap_err().contains("`colour:1..` is no interval"));
    }

    #[test]
    fn a_lora_is_a_file_and_a_scale() {
        let file = || Lora::new("a=b/style.safetensors");
        let merged = |lora, expert: Option<&str>| Ok(Merged { lora, expert: expert.map(str::to_owned) });
        assert_eq!(lora("a=b/style.safetensors"), merged(file(), None));
        assert_eq!(lora("a=b/style.safetensors=-0.5"), merged(file().scale(-0.5), None));
        assert_eq!(lora("a=b/style.safetensors@high"), merged(file(), Some("high")));
        assert_eq!(lora("a=b/style.safetensors@1=0.5"), merged(file().scale(0.5), Some("1")));
        assert!(lora("style.safetensors@high=nan").unwrap_err().contains("not finite"));
        for name in ["style@2x.safetensors", "me@home/style", "style@", "@style"] {
            assert_eq!(lora(name), merged(Lora::new(name), None));
        }
    }

    #[test]
    fn an_expert_is_called_as_its_weights_or_by_its_number() {
        let icons = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/icons");
        let number = |text: &str, folder: &Path| lora(text).unwrap().number(folder).map_err(|error| error.to_string());
        let of = |text: &str| number(text, &icons);
        assert_eq!(
            [of("a"), of("a@high"), of("a@low-detailed"), of("a@1=0.5")],
            [Ok(None), Ok(Some(0)), Ok(Some(2)), Ok(Some(1))]
        );
        for unknown in ["a@higher", "a@3"] {
            let error = of(unknown).unwrap_err();
            let expert = unknown.trim_start_matches("a@");
            assert!(error.contains(&format!("`{expert}`")) && error.contains("high, middle, low"), "{error}");
        }
        let published = tempfile::tempdir().unwrap();
        assert_eq!(number("a@1", published.path()), Ok(Some(1)));
        assert!(number("a@high", published.path()).unwrap_err().contains("`high`"));
    }
}
