//! Which timesteps of a table the steps of a sampler are.

use serde::{Deserialize, Serialize};

use super::table::NoiseTable;
use crate::{Error, Result};

/// How published samplers choose their timesteps (`timestep_spacing` in diffusers; Lin et al. 2023, "Common Diffusion Noise Schedules and
/// Sample Steps are Flawed", table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Spacing {
    /// At even whole distances from `offset` up: `steps_offset` in diffusers, 1 for Stable Diffusion. It does not begin at the top.
    Leading {
        /// The lowest timestep.
        offset: usize,
    },
    /// At even distances from the top down.
    Trailing,
    /// At even distances from the top to 0.
    Linspace,
}

impl Spacing {
    /// `steps` timesteps of `table`, descending.
    ///
    /// # Errors
    /// [`Error::InvalidSchedule`] unless `steps` is from 1 to the number of timesteps of the table, and for an offset that leads out of it.
    pub fn timesteps(self, table: NoiseTable, steps: usize) -> Result<Vec<usize>> {
        let all = table.len();
        if !(1..=all).contains(&steps) {
            let reason = format!("{steps} steps: there are {all} timesteps, and at least one is needed");
            return Err(Error::InvalidSchedule(reason));
        }
        // Halves are rounded to the even number, as NumPy does.
        let rounded = |t: f64| t.round_ties_even() as usize;
        Ok(match self {
            Self::Leading { offset } => {
                let highest = (all / steps) * (steps - 1);
                if offset >= all - highest {
                    let reason = format!("{steps} steps from timestep {offset} lead beyond timestep {}", all - 1);
                    return Err(Error::InvalidSchedule(reason));
                }
                (0..steps).rev().map(|step| step * (all / steps) + offset).collect()
            }
            Self::Trailing => {
                let distance = all as f64 / steps as f64;
                (0..steps).map(|step| rounded(all as f64 - step as f64 * distance).saturating_sub(1)).collect()
            }
            Self::Linspace => {
                let distance = (all - 1) as f64 / (steps.max(2) - 1) as f64;
                (0..steps).rev().map(|step| rounded(step as f64 * distance)).collect()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tch::Tensor;

    use super::*;

    const TABLE: NoiseTable = NoiseTable::ScaledLinear;

    #[test]
    fn timesteps_are_those_of_diffusers() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/stable-diffusion/tables.safetensors");
        let io: BTreeMap<String, Tensor> = Tensor::read_safetensors(path).unwrap().into_iter().collect();
        let mut seen = 0;
        for (name, spacing) in [
            ("leading.0", Spacing::Leading { offset: 0 }),
            ("leading.1", Spacing::Leading { offset: 1 }),
            ("trailing.0", Spacing::Trailing),
            ("linspace.0", Spacing::Linspace),
        ] {
            for steps in [1, 7, 30, 50] {
                let expected = Vec::<i64>::try_from(&io[&format!("timesteps.{name}.{steps}")]).unwrap();
                let found = spacing.timesteps(TABLE, steps).unwrap();
                assert_eq!(found.iter().map(|&t| t as i64).collect::<Vec<_>>(), expected, "{name} {steps}");
                seen += 1;
            }
        }
        assert_eq!(seen, 16);
    }

    #[test]
    fn every_number_of_steps_descends_inside_the_table() {
        for steps in 1..=1000 {
            for spacing in [Spacing::Leading { offset: 0 }, Spacing::Trailing, Spacing::Linspace] {
                let timesteps = spacing.timesteps(TABLE, steps).unwrap();
                assert_eq!(timesteps.len(), steps);
                assert!(
                    timesteps[0] < 1000 && timesteps.windows(2).all(|pair| pair[0] > pair[1]),
                    "{spacing:?} {steps}"
                );
            }
            assert_eq!(Spacing::Trailing.timesteps(TABLE, steps).unwrap()[0], 999);
            assert_eq!(Spacing::Leading { offset: 0 }.timesteps(TABLE, steps).unwrap(), TABLE.leading(steps).unwrap());
        }
        for (spacing, steps) in [
            (Spacing::Trailing, 0),
            (Spacing::Linspace, 1001),
            (Spacing::Leading { offset: 1 }, 1000),
            (Spacing::Leading { offset: usize::MAX }, 1),
        ] {
            assert!(matches!(spacing.timesteps(TABLE, steps), Err(Error::InvalidSchedule(_))), "{spacing:?}");
        }
        assert!(Spacing::Leading { offset: 999 }.timesteps(TABLE, 1).is_ok());
        let text = serde_json::to_string(&Spacing::Leading { offset: 1 }).unwrap();
        assert_eq!(text, r#"{"leading":{"offset":1}}"#);
    }
}
