//! How a request is drawn.

use std::path::{Path, PathBuf};

use clap::Args;
use ediffi::{Request, Solver, StyleImage};

use super::failure::Failure;
use super::once::expect_once;
use super::texts::{Texts, of_expert, of_stage, with_number};

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
    #[command(flatten)]
    texts: Texts,
    /// A variation of the picture of another seed, as 7=0.2.
    ///
    /// From 0, that picture, to 1, any other.
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
    /// Steps of one expert of a stage, as base.1=5. A plan has the numbers of the experts.
    #[arg(long, value_name = "STAGE.N=N", value_parser = of_expert::<usize>, hide_short_help = true)]
    expert_steps: Vec<(String, usize, usize)>,
    /// Guidance of one expert of a stage, as base.1=3.0.
    #[arg(long, value_name = "STAGE.N=SCALE", value_parser = of_expert::<f64>, hide_short_help = true)]
    expert_guidance: Vec<(String, usize, f64)>,
    /// Solver of one expert of a stage, as base.1=heun.
    #[arg(long, value_name = "STAGE.N=NAME", value_parser = of_expert::<Solver>, hide_short_help = true)]
    expert_solver: Vec<(String, usize, Solver)>,
}

impl Settings {
    /// The picture whose style is taken.
    pub(super) fn style(&self) -> Option<&Path> {
        self.style.as_deref()
    }

    /// The request with these settings in place of its own.
    pub(super) fn apply(&self, request: Request) -> Result<Request, Failure> {
        fn stages<T>(all: &[(String, T)]) -> impl Iterator<Item = String> {
            all.iter().map(|(stage, _)| stage.clone())
        }
        fn experts<T>(all: &[(String, usize, T)]) -> impl Iterator<Item = String> {
            all.iter().map(|(stage, expert, _)| format!("{stage}.{expert}"))
        }
        expect_once("--steps", stages(&self.steps))?;
        expect_once("--guidance", stages(&self.guidance))?;
        expect_once("--solver", stages(&self.solver))?;
        expect_once("--expert-steps", experts(&self.expert_steps))?;
        expect_once("--expert-guidance", experts(&self.expert_guidance))?;
        expect_once("--expert-solver", experts(&self.expert_solver))?;
        let mut request = self.texts.apply(request)?;
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
        for (stage, expert, steps) in &self.expert_steps {
            request = request.expert_steps(stage, *expert, *steps);
        }
        for (stage, expert, scale) in &self.expert_guidance {
            request = request.expert_guidance(stage, *expert, *scale);
        }
        for (stage, expert, solver) in &self.expert_solver {
            request = request.expert_solver(stage, *expert, *solver);
        }
        let (seed, images) = (self.seed.unwrap_or(request.seed), self.images.unwrap_or(request.images));
        Ok(request.seed(seed).images(images))
    }
}

/// `1024x768`.
fn size(text: &str) -> Result<(u32, u32), String> {
    let sides = text.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    sides.ok_or_else(|| "expected WIDTHxHEIGHT".to_owned())
}

/// `7=0.2`.
fn near(text: &str) -> Result<(u64, f64), String> {
    let (seed, strength) = with_number(text)?;
    Ok((seed.parse().map_err(|error| format!("{seed}: {error}"))?, strength))
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
        assert_eq!(of_expert::<f64>("sr.256.1=3.5"), Ok(("sr.256".to_owned(), 1, 3.5)));
        for wrong in ["base=3", "base.x=3", "base.1", "base.1=x"] {
            assert!(of_expert::<f64>(wrong).is_err(), "{wrong}");
        }
        assert_eq!(near("18446744073709551615=0.2"), Ok((u64::MAX, 0.2)));
        assert!(near("7").is_err() && near("x=1").is_err());
    }
}
