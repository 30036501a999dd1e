//! `evaluate compare`: models, or one model with fewer encoders, on the same prompts, seeds and scenes, so that what makes one
//! prompt harder than another does not hide a difference between them.

mod results;
mod variant;

use std::time::Instant;

use train_icons::pack::Pack;

use crate::bootstrap::{difference, mean, ratio, share};
use crate::error::{Error, Result};
use crate::frechet;
use crate::icons::{SHARES, errors, reference, renders};
use crate::judge::{Judge, Verdict};
use crate::machine;
use crate::model::Model;
use crate::pairs::paired;
use crate::prompts::{self, Prompt, facts};
pub use results::{Compared, Loss, Results, Share};
pub use variant::Variant;

/// What to compare.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// `NAME=FOLDER`, at least two; after the folder, `,without=t5` or `,without=clip` leaves an encoder out, `,preset=fast` takes a preset of
    /// the model and `,guidance=2` samples with this scale. All are compared with the first.
    #[arg(long = "variant", value_name = "NAME=FOLDER", required = true)]
    pub variants: Vec<Variant>,
    /// What this comparison is called: its JSON, its plot and its place in the document. Letters, digits and `-`.
    #[arg(long, value_parser = plain)]
    pub name: String,
    /// How many prompts.
    #[arg(long, default_value_t = prompts::ALL as u32, value_parser = clap::value_parser!(u32).range(2..))]
    pub prompts: u32,
}

/// A name that is safe in the names of files.
fn plain(name: &str) -> std::result::Result<String, String> {
    let fits = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if fits { Ok(name.to_owned()) } else { Err("it has other characters than letters, digits and `-`".to_owned()) }
}

/// Errors of the estimates, by noise level.
type Errors = Vec<(f64, Vec<f64>)>;
/// A variant's pictures as the judge sees them, and its errors.
type Observed = (Vec<Verdict>, Errors);

/// Compares variants.
///
/// # Errors
/// [`Error::Setting`] for fewer than two variants, or two of one name; those of the models, of the scenes and of the judge.
pub fn evaluate(judge: &Judge, pack: &Pack, settings: &Settings) -> Result<Results> {
    let began = Instant::now();
    let names: std::collections::BTreeSet<&str> = settings.variants.iter().map(|v| v.name.as_str()).collect();
    if names.len() < settings.variants.len() || names.len() < 2 {
        let reason = "two variants or more are compared, each under a name of its own".to_owned();
        return Err(Error::Setting { what: "variant", reason });
    }
    let prompts = prompts::prompts(settings.prompts as usize)?;
    let clean = renders(pack, &prompts)?;
    let mut compared: Vec<Compared> = Vec::new();
    let (mut first, mut machine): (Option<Observed>, _) = (None, String::new());
    // A folder that cannot be opened shows before anything is drawn.
    let open = |variant: &Variant| {
        let model = Model::open(&variant.model, None)?;
        model.judged_base()?;
        Ok(model)
    };
    let models = settings.variants.iter().map(open).collect::<Result<Vec<_>>>()?;
    let reference = reference(judge, pack, prompts.len())?;
    let frechet_floor = frechet::measure(&frechet::features(&judge.look_at(&clean)?)?, &reference)?;
    // What was estimated once is not estimated again for another guidance.
    let mut estimates: Vec<(&Variant, Errors)> = Vec::new();
    for (variant, model) in settings.variants.iter().zip(&models) {
        machine = machine::describe(model);
        let sampler = variant.sampler(model.presets(), model.judged_base()?)?;
        let wishes = model.wishes(prompts.iter().map(Prompt::asked), variant.without)?;
        let verdicts = judge.look_at(&model.draw(&wishes, 1, &sampler, None)?)?;
        let same = estimates.iter().find(|(other, _)| other.estimates_as(variant));
        let estimates_of = match same {
            Some((_, errors)) => errors.clone(),
            None => errors(model, &wishes, &clean)?,
        };
        estimates.push((variant, estimates_of.clone()));
        let observed = (verdicts, estimates_of);
        let (shares, loss) = compare(&prompts, &observed, first.as_ref())?;
        let frechet = frechet::measure(&frechet::features(&observed.0)?, &reference)?;
        compared.push(Compared { variant: variant.clone(), sampler, shares, frechet, loss });
        first.get_or_insert(observed);
    }
    Ok(Results {
        name: settings.name.clone(),
        prompts: prompts.len(),
        machine,
        judge: judge.fingerprint.clone(),
        frechet_floor,
        compared,
        seconds: began.elapsed().as_secs_f64(),
    })
}

fn compare(
    prompts: &[Prompt],
    (verdicts, errors): &Observed,
    first: Option<&Observed>,
) -> Result<(Vec<Share>, Vec<Loss>)> {
    let mut shares = Vec::new();
    for (name, kinds, of) in SHARES {
        let own = facts(prompts, verdicts, kinds, of)?;
        let gain = match first {
            // Where what is asked depends on what the picture shows (the colour of objects that are there), there is no
            // difference picture by picture.
            Some((verdicts, _)) => {
                let theirs = facts(prompts, verdicts, kinds, of)?;
                let same = own.iter().zip(&theirs).all(|((_, asked), (_, other))| asked == other);
                let triple = |((right, asked), (other, _)): (&(f64, f64), &(f64, f64))| (*right, *other, *asked);
                same.then(|| difference(&own.iter().zip(&theirs).map(triple).collect::<Vec<_>>())).flatten()
            }
            None => None,
        };
        shares.push(Share { name: name.to_owned(), value: share(&own), gain });
    }
    let mut loss = Vec::new();
    for (level, (sigma, own)) in errors.iter().enumerate() {
        let theirs = first.and_then(|(_, errors)| errors.get(level));
        let relative = match theirs {
            Some((_, theirs)) => ratio(&paired("errors", own, theirs)?.map(|(a, b)| (*a, *b)).collect::<Vec<_>>()),
            None => None,
        };
        loss.push(Loss { sigma: *sigma, error: mean(own), relative });
    }
    Ok((shares, loss))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_paths() {
        assert_eq!(plain("experts-2").unwrap(), "experts-2");
        for wrong in ["", "a/b", "icons.json", "a b"] {
            assert!(plain(wrong).is_err(), "{wrong}");
        }
    }

    /// Nothing is seen in the first's pictures and all that is asked in the other's; its errors are half as large.
    #[test]
    fn differences_are_those_from_the_first() {
        let prompts = prompts::prompts(60).unwrap();
        let verdict = |prompt: &Prompt, seen: bool| {
            let mut verdict = crate::wanted::tests::perfect(&prompt.scene);
            verdict.detections.retain(|_| seen);
            verdict
        };
        let verdicts = |seen| prompts.iter().map(|prompt| verdict(prompt, seen)).collect::<Vec<_>>();
        let errors = |scale: f64| vec![(1.0, (1..=60).map(|n| scale * f64::from(n)).collect::<Vec<_>>())];
        let (nothing, all) = ((verdicts(false), errors(2.0)), (verdicts(true), errors(1.0)));
        let (shares, loss) = compare(&prompts, &all, Some(&nothing)).unwrap();
        let share = |name: &str| shares.iter().find(|share| share.name.starts_with(name)).unwrap();
        assert_eq!(share("one object").gain.map(|gain| gain.value), Some(1.0));
        assert_eq!(share("colour of objects").gain, None, "asked of objects that are there alone");
        let ratio = loss[0].relative.unwrap();
        assert!((ratio.value - 0.5).abs() < 1e-12 && (ratio.high - ratio.low).abs() < 1e-12, "{ratio:?}");
        let (alone, loss) = compare(&prompts, &nothing, None).unwrap();
        assert!(alone.iter().all(|share| share.gain.is_none()) && loss[0].relative.is_none());
    }
}
