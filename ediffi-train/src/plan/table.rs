//! A plan as a table: what each network is trained on, which one it starts from, and which steps of sampling it will own.

use std::fmt;

use super::stage::{NetworkTraining, StageTraining};
use super::task::Task;
use super::training::Training;
use super::training_plan::TrainingPlan;

/// The columns of the table.
const COLUMNS: [&str; 9] =
    ["network", "cell", "sigma", "starts from", "steps", "pictures", "rate", "average", "sampling"];

impl fmt::Display for TrainingPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, seed, batch, accumulate, .. } = self;
        writeln!(f, "plan {name}: seed {seed}, {accumulate} x {batch} pictures a step")?;
        for encoder in &self.encoders {
            let batch = self.batches(&Task::Encoder(encoder)).batch;
            let Training { steps, learning_rate, .. } = encoder.training;
            writeln!(f, "\nencoder {}: {steps} steps of {batch} pictures, rate {learning_rate:e}", encoder.name)?;
        }
        for stage in &self.stages {
            writeln!(f)?;
            stage.write(f, batch.saturating_mul(*accumulate))?;
        }
        Ok(())
    }
}

impl StageTraining {
    fn write(&self, f: &mut fmt::Formatter<'_>, pictures_a_step: u64) -> fmt::Result {
        write!(f, "stage {}: ln sigma ~ N({}, {}^2)", self.name, self.noise.p_mean(), self.noise.p_std())?;
        if let Some(tail) = &self.tail {
            let percent = 100.0 * tail.share;
            write!(f, ", {percent} % of the levels evenly in ln sigma from {} to {}", tail.from, tail.to)?;
        }
        writeln!(f, "; sampled in {} steps", self.sampling.steps)?;
        // A plan made in code may not be checked; it is still shown, without what cannot be told.
        let owned = match (self.experts(), self.sampling_steps()) {
            (Ok(experts), Ok(steps)) => experts.iter().zip(steps).map(|(e, n)| (e.network.name.clone(), n)).collect(),
            _ => Vec::new(),
        };
        let mut rows = vec![COLUMNS.map(str::to_owned)];
        for network in &self.networks {
            let own = owned.iter().find(|(name, _)| *name == network.name).map(|(_, steps)| *steps);
            rows.push(self.row(network, own, pictures_a_step));
        }
        let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
        let widths: Vec<usize> = (0..COLUMNS.len()).map(|column| width(column).unwrap_or(0)).collect();
        for row in &rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(f, "  {}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }

    fn row(&self, network: &NetworkTraining, own: Option<usize>, pictures_a_step: u64) -> [String; 9] {
        let Training { steps, learning_rate, cosine, ema, .. } = network.training;
        let interval = network.cell.interval(&self.noise);
        let total = self.sampling.steps;
        [
            network.name.clone(),
            network.cell.to_string(),
            interval.map_or_else(|error| error.to_string(), |interval| format!("{interval:.4}")),
            network.parent.clone().unwrap_or_else(|| "new weights".to_owned()),
            steps.to_string(),
            steps.saturating_mul(pictures_a_step).to_string(),
            format!("{learning_rate:e}{}", if cosine { " cosine" } else { "" }),
            ema.to_string(),
            own.map_or_else(String::new, |own| format!("{own} of {total}, {:.0} %", 100.0 * own as f64 / total as f64)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::paper::{Budget, plan};
    use super::super::stage::Sampling;
    use super::*;
    use crate::tree::Configuration;
    use ediffi_core::schedule::Schedule;

    #[test]
    fn the_table_says_who_owns_which_steps() {
        let training = Training { steps: 100, learning_rate: 1e-3, warm_up: 0, cosine: true, ema: 0.999 };
        let sampling = |steps| Sampling { steps, schedule: Schedule::edm() };
        let budget = Budget {
            batch: 4,
            accumulate: 2,
            shared: training,
            child: Training { steps: 10, ..training },
            super_resolution: training,
            base_sampling: sampling(25),
            super_resolution_sampling: sampling(10),
        };
        let text = plan("d", Configuration::D, &budget).unwrap().to_string();
        let line = |start: &str| {
            let found = text.lines().find(|line| line.trim_start().starts_with(start));
            found.unwrap_or_else(|| panic!("{text}")).split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line("plan"), "plan d: seed 1, 2 x 4 pictures a step");
        assert_eq!(line("e0-0"), "e0-0 (0, 0) [0.0000, inf) new weights 100 800 1e-3 cosine 0.999");
        assert!(line("e9-511").starts_with("e9-511 (9, 511) [9.6096, inf) e8-255 10 80"), "{text}");
        assert!(line("e9-511").ends_with("9 of 25, 36 %"), "{text}");
        assert!(line("rest").starts_with("rest all but (9, 511) and (3, 0) [0.0757, 9.6096) e0-0"), "{text}");
        assert!(line("stage base").contains("25 steps"), "{text}");
        // A plan that is too long to count is still shown.
        let endless = Budget { shared: Training { steps: u64::MAX, ..training }, ..budget };
        assert!(plan("d", Configuration::D, &endless).unwrap().to_string().contains(&u64::MAX.to_string()));
    }
}
