//! How a request is drawn.

use std::path::PathBuf;

use clap::Args;
use ediffi::{Mix, Request, SigmaInterval, Solver, StyleImage};

/// How a request is drawn. What is not said stays as the model, or the request, has it.
#[derive(Args)]
pub(super) struct Settings {
    /// The seed of the first image; the others follow.
    #[arg(long)]
    seed: Option<u64>,
    /// How many images.
    #[arg(long)]
    images: Option<usize>,
    /// Width and height in pixels, as 1024x768.
    #[arg(long, value_parser = size, value_name = "WxH")]
    size: Option<(u32, u32)>,
    /// What it shall be guided away from.
    #[arg(long, value_name = "PROMPT")]
    negative: Option<String>,
    /// Another prompt that shares in the picture, as "a dog=0.5".
    #[arg(long, value_name = "PROMPT=SHARE", value_parser = with_number)]
    mix: Vec<(String, f64)>,
    /// Another prompt that takes over below a noise level, as "a dog=5".
    #[arg(long, value_name = "PROMPT=SIGMA", value_parser = taking_over)]
    then: Vec<Mix>,
    /// What one stage is told in the place of the prompt, as "sr256=a dog".
    #[arg(long, value_name = "STAGE=PROMPT", value_parser = of_stage::<String>)]
    stage_prompt: Vec<(String, String)>,
    /// Make variations of the picture of another seed, as 7=0.2: from 0, that picture, to 1, any other.
    #[arg(long, value_name = "SEED=STRENGTH", value_parser = near)]
    near: Option<(u64, f64)>,
    /// A picture whose style to take.
    #[arg(long, value_name = "IMAGE")]
    style: Option<PathBuf>,
    /// How much of the style, from 0.
    #[arg(long, value_name = "STRENGTH", default_value_t = 1.0, requires = "style")]
    style_strength: f64,
    /// A preset of the model, as fast.
    #[arg(long)]
    preset: Option<String>,
    /// The last stage to run.
    #[arg(long, value_name = "STAGE")]
    last_stage: Option<String>,
    /// Steps of a stage, as base=30.
    #[arg(long, value_name = "STAGE=N", value_parser = of_stage::<usize>)]
    steps: Vec<(String, usize)>,
    /// Guidance of a stage, as base=6.0; 1 is none.
    #[arg(long, value_name = "STAGE=SCALE", value_parser = of_stage::<f64>)]
    guidance: Vec<(String, f64)>,
    /// Solver of a stage, as base=heun.
    #[arg(long, value_name = "STAGE=NAME", value_parser = of_stage::<Solver>)]
    solver: Vec<(String, Solver)>,
    /// Leave the end of a prompt that is too long unread.
    #[arg(long)]
    truncate: bool,
}

impl Settings {
    /// The request with these settings in place of its own.
    pub(super) fn apply(&self, mut request: Request) -> Result<Request, ediffi::Error> {
        if let Some(negative) = &self.negative {
            request = request.negative_prompt(negative);
        }
        for (prompt, share) in &self.mix {
            request = request.mix(Mix::new(prompt).share(*share));
        }
        for mix in &self.then {
            request = request.mix(mix.clone());
        }
        for (stage, prompt) in &self.stage_prompt {
            request = request.stage_prompt(stage, prompt);
        }
        if let Some((seed, strength)) = self.near {
            request = request.near(seed, strength);
        }
        if let Some(style) = &self.style {
            request = request.style_with_strength(StyleImage::open(style)?, self.style_strength);
        }
        if let Some((width, height)) = self.size {
            request = request.size(width, height);
        }
        if let Some(stage) = &self.last_stage {
            request = request.last_stage(stage);
        }
        if let Some(preset) = &self.preset {
            request = request.preset(preset);
        }
        for (stage, steps) in &self.steps {
            request = request.steps(stage, *steps);
        }
        for (stage, scale) in &self.guidance {
            request = request.guidance(stage, *scale);
        }
        for (stage, solver) in &self.solver {
            request = request.solver(stage, *solver);
        }
        let (seed, images) = (self.seed.unwrap_or(request.seed), self.images.unwrap_or(request.images));
        let truncate = self.truncate || request.truncate;
        Ok(request.seed(seed).images(images).truncate(truncate))
    }
}

/// `1024x768`.
fn size(text: &str) -> Result<(u32, u32), String> {
    let sides = text.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    sides.ok_or_else(|| "expected WIDTHxHEIGHT".to_owned())
}

/// `a dog=0.5`. A prompt may have such a sign itself.
fn with_number(text: &str) -> Result<(String, f64), String> {
    let (prompt, number) = text.rsplit_once('=').ok_or("expected PROMPT=NUMBER")?;
    Ok((prompt.to_owned(), number.parse().map_err(|error| format!("{number}: {error}"))?))
}

/// `a dog=5`.
fn taking_over(text: &str) -> Result<Mix, String> {
    let (prompt, sigma) = with_number(text)?;
    let sigma = SigmaInterval::new(0.0, sigma).map_err(|error| error.to_string())?;
    Ok(Mix::new(prompt).sigma(sigma))
}

/// `7=0.2`.
fn near(text: &str) -> Result<(u64, f64), String> {
    let (seed, strength) = with_number(text)?;
    Ok((seed.parse().map_err(|error| format!("{seed}: {error}"))?, strength))
}

/// `base=30`.
fn of_stage<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<(String, T), String> {
    let (stage, value) = text.split_once('=').ok_or("expected STAGE=VALUE")?;
    Ok((stage.to_owned(), value.parse().map_err(|error| format!("{value}: {error}"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_settings_of_stages_are_read() {
        assert_eq!(size("1024x768"), Ok((1024, 768)));
        assert!(size("1024").is_err() && size("axb").is_err());
        assert_eq!(of_stage::<usize>("base=30"), Ok(("base".to_owned(), 30)));
        assert!(of_stage::<usize>("base").is_err());
        assert!(of_stage::<Solver>("base=heum").unwrap_err().contains("heum"));
        assert_eq!(with_number("1 + 1 = 2=0.5"), Ok(("1 + 1 = 2".to_owned(), 0.5)));
        assert_eq!(near("18446744073709551615=0.2"), Ok((u64::MAX, 0.2)));
        assert!(
            near("7").is_err() && near("x=1").is_err() && taking_over("a=-1").is_err() && with_number("a").is_err()
        );
    }
}
