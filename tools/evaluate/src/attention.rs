//! `evaluate attention`: where the cross-attention of the base looks, by noise level (eDiff-I, figure 3: at high noise at the words,
//! at low noise at the null token).

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ediffi::Conditioning;
use ediffi_cascade::{CascadeJob, SamplerSettings, SettingsPatch};
use ediffi_core::nn::{Bias, ScoreBias, Site};
use serde::Serialize;
use tch::{Kind, Tensor};

use crate::bootstrap::{Measure, mean};
use crate::document::{Table, percent};
use crate::error::{Error, Result};
use crate::machine;
use crate::measured::Measured;
use crate::model::{Model, Wish, pictures};
use crate::plot::{Axis, Line, Plot};
use crate::prompts::{self, Prompt};

/// Kinds of columns, in the order of their tokens. The tokens of start and end count as words.
const GROUPS: [&str; 6] =
    ["T5: words", "T5: past the end", "CLIP: words", "CLIP: past the end", "CLIP image", "null token"];

/// What to watch.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// The model folder.
    #[arg(long, default_value = "models/icons")]
    pub model: PathBuf,
    /// How many prompts.
    #[arg(long, default_value_t = 96, value_parser = clap::value_parser!(u32).range(2..))]
    pub prompts: u32,
}

/// Where attention goes at a noise level.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AttentionAt {
    sigma: f64,
    /// The share of the attention on each kind of column, over all layers, heads and positions.
    groups: Vec<Option<Measure>>,
}

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Results {
    model: PathBuf,
    prompts: usize,
    sampler: SamplerSettings,
    machine: String,
    levels: Vec<AttentionAt>,
    seconds: f64,
}

/// A look of one layer at one noise level: of every row, the share on each kind of column.
type Look = (f64, Vec<Vec<f64>>);

/// Of every picture of a batch, the share on one kind of column at a noise level: the mean over the layers.
fn of_pictures(looks: &[Look], sigma: f64, group: usize) -> Vec<f64> {
    let layers: Vec<&Vec<Vec<f64>>> = looks.iter().filter(|(at, _)| *at == sigma).map(|(_, rows)| rows).collect();
    let rows = layers.first().map_or(0, |rows| rows.len());
    let share = |row: usize| layers.iter().filter_map(|rows| rows.get(row)?.get(group)).sum::<f64>();
    (0..rows).map(|row| share(row) / layers.len() as f64).collect()
}

/// Watches the attention while pictures are drawn.
pub fn evaluate(settings: &Settings) -> Result<Results> {
    let began = Instant::now();
    let model = Model::open(&settings.model, None)?;
    let base = model.base()?;
    let sampler = base.settings.clone();
    let prompts = prompts::prompts(settings.prompts as usize)?;
    let wishes = model.wishes(prompts.iter().map(Prompt::asked), None)?;
    let looks = model.watched(&wishes, &sampler)?;
    let levels = sampler.sigmas(base.precondition.timesteps())?.into_iter().filter(|&sigma| sigma > 0.0).map(|sigma| {
        // Noise levels reach the hook as they stand in the schedule.
        let of = |group: usize| {
            let pictures = looks.iter().map(|batch| of_pictures(batch, sigma, group));
            mean(&pictures.collect::<Vec<_>>().concat())
        };
        AttentionAt { sigma, groups: (0..GROUPS.len()).map(of).collect() }
    });
    Ok(Results {
        model: settings.model.clone(),
        prompts: prompts.len(),
        levels: levels.collect(),
        sampler,
        machine: machine::describe(&model),
        seconds: began.elapsed().as_secs_f64(),
    })
}

impl Model {
    /// Draws the base's pictures and returns where every layer looked at every noise level, batch by batch.
    fn watched(&self, wishes: &[Wish], settings: &SamplerSettings) -> Result<Vec<Vec<Look>>> {
        let patch = SettingsPatch::from(settings.clone());
        self.each(
            wishes,
            1,
            |_| Ok(()),
            |opened, batch, ()| {
                let taken = opened.stages().first().ok_or(Error::Worker)?.io().embeddings;
                let members = Mutex::new(members(&taken.select(&batch.conditioning))?);
                let watcher = Watcher { members, looks: Mutex::new(Vec::new()) };
                let plans = opened.plan(0..=0, (None, None), |_| Some(&patch))?;
                let job = CascadeJob::new(&plans, &batch.conditioning, &batch.seeds);
                let _ = pictures(opened, CascadeJob { paint: Some(&watcher), ..job })?;
                Ok(watcher.looks.into_inner().unwrap_or_else(PoisonError::into_inner))
            },
        )
    }
}

/// Which text column is of which of the first four [`GROUPS`], [rows, columns, 4] of zeros and ones. Embeddings past the end of a
/// prompt are zeros.
fn members(conditioning: &Conditioning) -> Result<Tensor> {
    let (Some(t5), Some(clip)) = (&conditioning.t5, &conditioning.clip_text) else {
        return Err(Error::Setting { what: "model", reason: "it does not read both T5 and CLIP".to_owned() });
    };
    let text = |x: &Tensor, first: i64| {
        let past = x.f_abs()?.f_sum_dim_intlist(-1_i64, false, Kind::Float)?.f_eq(0.0)?;
        past.f_to_kind(Kind::Int64)?.f_add_scalar(first)?.f_one_hot(4)?.f_to_kind(Kind::Float)
    };
    Ok(Tensor::f_cat(&[text(t5, 0)?, text(clip, 2)?], 1)?)
}

/// Looks on and changes nothing.
#[derive(Debug)]
struct Watcher {
    /// A tensor may be sent to another thread, and not be shared by two.
    members: Mutex<Tensor>,
    looks: Mutex<Vec<Look>>,
}

impl ScoreBias for Watcher {
    fn bias(&self, site: &Site<'_>) -> ediffi_core::Result<Option<Bias>> {
        let scores = Tensor::f_cat(&[site.scores()?, site.other_scores()?], -1)?;
        let attention = scores.f_softmax(-1, Kind::Float)?.f_mean_dim([1_i64, 2].as_slice(), false, Kind::Float)?;
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let (columns, text) = (attention.size2()?.1, members.size3()?.1);
        let of_text = attention.f_narrow(1, 0, text)?.f_unsqueeze(1)?.f_matmul(&members)?.f_squeeze_dim(1)?;
        // After the text come the CLIP image, where there is one, and the null token.
        let image = attention.f_narrow(1, text, columns - 1 - text)?.f_sum_dim_intlist(-1_i64, true, Kind::Float)?;
        let shares = Tensor::f_cat(&[of_text, image, attention.f_narrow(1, columns - 1, 1)?], 1)?;
        let shares = Vec::<Vec<f64>>::try_from(shares.f_to_kind(Kind::Double)?)?;
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).push((site.sigma, shares));
        Ok(None)
    }
}

impl Measured for Results {
    fn name(&self) -> String {
        "attention".to_owned()
    }

    fn markdown(&self) -> String {
        let mut table = Table::new(["σ"].into_iter().chain(GROUPS));
        for level in &self.levels {
            let shares = level.groups.iter().map(|group| percent(*group));
            table.row([format!("{:.3}", level.sigma)].into_iter().chain(shares));
        }
        format!(
            "{} prompts, base stage, % of the attention of all layers; {}; {:.0} s.\n\n{table}",
            self.prompts, self.machine, self.seconds
        )
    }

    fn plots(&self) -> Vec<(String, Plot)> {
        let line = |(group, name): (usize, &str)| {
            let share = |level: &AttentionAt| level.groups.get(group).copied().flatten();
            let points = self.levels.iter().rev().map(|level| (level.sigma, share(level).map(|m| m.times(100.0))));
            Line::measured(name, points)
        };
        let plot = Plot {
            title: "Where the cross-attention looks".to_owned(),
            x: Axis::logarithmic("σ"),
            y: Axis::linear("% of the attention"),
            lines: GROUPS.into_iter().enumerate().map(line).collect(),
        };
        vec![(self.name(), plot)]
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn layers_of_a_picture_are_one_number() {
        let row = |share: f64| vec![share, 1.0 - share];
        let looks =
            vec![(2.0, vec![row(0.2), row(0.6)]), (2.0, vec![row(0.4), row(0.8)]), (1.0, vec![row(1.0), row(1.0)])];
        let close = |found: Vec<f64>, expected: [f64; 2]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12) && found.len() == 2, "{found:?}");
        };
        close(of_pictures(&looks, 2.0, 0), [0.3, 0.7]);
        close(of_pictures(&looks, 2.0, 1), [0.7, 0.3]);
        assert!(of_pictures(&looks, 3.0, 0).is_empty());
    }

    /// Two T5 tokens of which the second is past the end, and one of CLIP, without other columns: what is not text is nothing.
    #[test]
    fn words_are_told_from_what_is_past_the_end() {
        let t5 = Tensor::from_slice(&[1.0_f32, 0.0, 0.0, 0.0]).view([1, 2, 2]);
        let clip = Tensor::ones([1, 1, 2], (Kind::Float, Device::Cpu));
        let conditioning = Conditioning { t5: Some(t5), clip_text: Some(clip), ..Conditioning::default() };
        let members = members(&conditioning).unwrap();
        let expected = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0_f32];
        assert_eq!(Vec::<f32>::try_from(members.reshape([-1])).unwrap(), expected);
        assert!(super::members(&Conditioning::default()).is_err());
        // Scores ln 1, ln 2 and ln 5, of one head at one place; the last column stands for the null token.
        let scores = Tensor::from_slice(&[1.0_f32, 2.0, 5.0]).log().view([1, 1, 1, 3]);
        let watcher = Watcher { members: Mutex::new(members.narrow(1, 0, 2)), looks: Mutex::new(Vec::new()) };
        assert!(watcher.bias(&Site::new(3.0, 1, 1, &scores)).unwrap().is_none());
        let (sigma, rows) = watcher.looks.into_inner().unwrap().pop().unwrap();
        let expected = [0.125, 0.25, 0.0, 0.0, 0.0, 0.625];
        assert!(rows[0].iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{rows:?}");
        assert_eq!((sigma, rows[0].len()), (3.0, GROUPS.len()));
    }
}
