//! A training as a progress bar.

use ediffi_train::log::Entry;
use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar of steps.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    begun: bool,
}

impl Progress {
    /// The bar of a training of this many steps.
    pub fn new(name: &str, steps: u64) -> Self {
        let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {msg} eta {eta}");
        let bar = ProgressBar::new(steps).with_prefix(name.to_owned());
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, begun: false }
    }

    /// Shows a step that is done.
    pub fn step(&mut self, step: u64, entry: Option<&Entry>) {
        self.at(step);
        if let Some(entry) = entry {
            self.bar.set_message(format!("loss {:.4} {:.1} pictures/s", entry.loss, entry.speed));
        }
    }

    fn at(&mut self, step: u64) {
        if !self.begun {
            // Steps of earlier runs are no measure of the speed of this one.
            self.bar.set_position(step - 1);
            self.bar.reset_eta();
            self.begun = true;
        }
        self.bar.set_position(step);
    }

    /// Leaves the bar as it is.
    pub fn finish(&self) {
        self.bar.finish();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The speed times the time is how many steps the bar believes were done in it: two, and not the 900 of an earlier run.
    #[test]
    fn a_training_that_goes_on_is_measured_by_its_own_steps() {
        let mut progress = Progress::new("a", 1000);
        progress.at(901);
        std::thread::sleep(Duration::from_millis(20));
        progress.at(902);
        assert_eq!(progress.bar.position(), 902);
        let believed = progress.bar.per_sec() * progress.bar.elapsed().as_secs_f64();
        assert!(believed < 100.0, "{believed}");
    }
}
