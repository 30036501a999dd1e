//! `evaluate paint`: how often painted objects are where they were painted, for every rule of the weight and every w'.

mod results;

use std::path::{Path, PathBuf};
use std::time::Instant;

use ediffi::{Growth, LayoutGuidance, Painter, Request, SigmaInterval, Statistic, Strength};
use ediffi_core::files::write_json;
use ediffi_train::pixels::from_rgb;
use train_icons::pack::Pack;
use train_icons::render::Renderer;

use crate::error::{Error, Result};
use crate::judge::network::SIDE;
use crate::judge::{Judge, Verdict};
use crate::kept::{Kept, key};
use crate::machine;
use crate::model::Model;
use crate::pairs::paired;
use crate::placed::{Outcome, Placed, placed};
use results::{NO_PAINT, RULES};
pub use results::{Results, RuleResult};

/// What to evaluate.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// The model folder.
    #[arg(long, default_value = "models/icons")]
    pub model: PathBuf,
    /// How many prompts.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..))]
    pub prompts: u32,
    /// The values of w' to try with every rule.
    #[arg(long, value_delimiter = ',', default_values_t = [0.1, 0.25, 0.4, 0.6, 1.5, 4.0])]
    pub weights: Vec<f64>,
    /// The scales of layout guidance to try with the default strength.
    #[arg(long, value_delimiter = ',')]
    pub layout: Vec<f64>,
    /// The noise level that layout guidance acts from.
    #[arg(long, default_value_t = 2.0)]
    pub layout_from: f64,
    /// How many threads draw; one a core unless said.
    #[arg(long)]
    pub threads: Option<usize>,
}

/// Evaluates a model. `kept` is a file that each finished cell goes to, and that an earlier run may have left.
pub fn evaluate(judge: &Judge, pack: &Pack, settings: &Settings, kept: &Path) -> Result<Results> {
    let began = Instant::now();
    let model = Model::open(&settings.model, settings.threads)?;
    let base = model.judged_base()?.clone();
    let prompts = placed(settings.prompts as usize, |caption| model.reads(caption))?;
    let key = key(&model, judge, &prompts)?;
    let mut done = Kept::open(kept, key);
    let renderer = Renderer::new(pack)?;
    let renders = prompts.iter().map(|prompt| prompt.render(&renderer)).collect::<Result<Vec<_>>>()?;
    let outcomes = |verdicts: &[Verdict]| -> Result<Vec<Outcome>> {
        Ok(paired("pictures", &prompts, verdicts)?.map(|(prompt, verdict)| Outcome::new(prompt, verdict)).collect())
    };
    let ideal = outcomes(&judge.look_at(&from_rgb(&renders, SIDE, SIDE)?)?)?;
    let mut cells = vec![RuleResult::new("renders", 0.0, &prompts, &ideal, None)?];
    let mut plain: Option<Vec<Outcome>> = None;

    let wishes = model.wishes(prompts.iter().map(|prompt| (&prompt.scene, prompt.seed)), None)?;
    let mut rules = strengths(&settings.weights);
    for &scale in &settings.layout {
        rules.push(guided(scale, settings.layout_from)?);
    }
    let bar = indicatif::ProgressBar::new(rules.len() as u64);
    for (rule, strength) in rules {
        let name = format!("{rule} {}", strength.as_ref().map_or(0.0, |strength| strength.weight));
        let found = match done.outcomes.get(&name) {
            Some(found) => found.clone(),
            None => {
                let painters = strength.as_ref().map(|strength| painters(&model, &prompts, strength)).transpose()?;
                let pictures = model.draw(&wishes, 1, &base.settings, painters.as_deref())?;
                let found = outcomes(&judge.look_at(&pictures)?)?;
                done.outcomes.insert(name, found.clone());
                write_json(kept, &done)?;
                found
            }
        };
        let weight = strength.map_or(0.0, |strength| strength.weight);
        cells.push(RuleResult::new(&rule, weight, &prompts, &found, plain.as_deref())?);
        // The first is without paint.
        plain.get_or_insert(found);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Results {
        model: settings.model.clone(),
        prompts: prompts.len(),
        machine: machine::describe(&model),
        judge: judge.fingerprint.clone(),
        cells,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// What paints the boxes of the prompts with this strength.
fn painters(model: &Model, prompts: &[Placed], strength: &Strength) -> Result<Vec<Painter>> {
    let bound = |prompt: &Placed| {
        let canvas = prompt.canvas()?.with_strength(strength.clone()).map_err(ediffi::Error::from)?;
        let request = Request::new(&prompt.scene.caption).canvas(canvas);
        model.pipeline.painter(&request)?.ok_or(Error::Worker)
    };
    prompts.iter().map(bound).collect()
}

/// No paint, then every rule with every w'.
fn strengths(weights: &[f64]) -> Vec<(String, Option<Strength>)> {
    let of = |(name, statistic, growth): (&'static str, Statistic, Growth)| {
        let strength =
            move |&weight: &f64| (name.to_owned(), Some(Strength { statistic, growth, ..Strength::new(weight) }));
        weights.iter().map(strength).collect::<Vec<_>>()
    };
    std::iter::once((NO_PAINT.to_owned(), None)).chain(RULES.into_iter().flat_map(of)).collect()
}

/// The default strength with layout guidance from this noise level up.
fn guided(scale: f64, from: f64) -> Result<(String, Option<Strength>)> {
    let sigma = SigmaInterval::new(from, f64::INFINITY)?;
    let strength = Strength::default().with_layout(LayoutGuidance { scale, sigma });
    Ok((format!("{}, layout guidance {scale} from σ = {from}", RULES[0].0), Some(strength)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_meets_every_weight_once() {
        let all = strengths(&[0.1, 4.0]);
        assert_eq!(all.len(), 1 + 2 * RULES.len());
        assert!(all[0].1.is_none());
        assert!(all[1..].iter().all(|(_, strength)| strength.as_ref().is_some_and(|s| s.check().is_ok())));
    }
}
