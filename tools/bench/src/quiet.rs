//! Whether the machine was busy with something else while a row was measured.

use std::time::Instant;

use crate::result::Result;

/// Ticks of a second in the files of `/proc`: Linux shows programs 100 whatever its own clock is.
const TICKS: f64 = 100.0;

/// What all processors have done so far, and what of it was ours.
pub(crate) struct Watch {
    since: Instant,
    others: f64,
}

impl Watch {
    pub(crate) fn start() -> Result<Self> {
        Ok(Self { since: Instant::now(), others: others()? })
    }

    /// How many processors' worth of time others took since the start. Every side has to have ended: the system adds up what a
    /// process used when its parent learns of its end.
    pub(crate) fn others(&self) -> Result<f64> {
        let took = (others()? - self.others) / self.since.elapsed().as_secs_f64();
        Ok(took.max(0.0))
    }
}

/// Seconds of processors that others used since the machine was started.
fn others() -> Result<f64> {
    let (all, own) = (std::fs::read_to_string("/proc/stat")?, std::fs::read_to_string("/proc/self/stat")?);
    let ticks = busy(&all).zip(used(&own)).map(|(busy, used)| busy - used);
    Ok(ticks.ok_or("/proc/stat and /proc/self/stat are not as Linux has them")? / TICKS)
}

/// Ticks in which the processors did something, or another virtual machine took them away; proc(5): user, nice, system, idle,
/// iowait, irq, softirq, steal.
fn busy(stat: &str) -> Option<f64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<f64> = line.split_whitespace().take(8).filter_map(|word| word.parse().ok()).collect();
    let [user, nice, system, _, _, irq, softirq, steal] = ticks[..] else { return None };
    Some(user + nice + system + irq + softirq + steal)
}

/// Ticks of this process and of those that it started and that have ended: fields 14 to 17. The name in field 2 may hold anything.
fn used(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields = rest.split_whitespace().skip(11).take(4);
    fields.map(|word| word.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_linux_are_read() {
        let stat = "cpu  10 1 4 1000 50 2 3 5 7 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy(stat), Some(25.0));
        assert_eq!(busy("cpu  10 1 4\n"), None);
        let own = "42 (a) name) S 1 2 3 4 5 6 7 8 9 10 100 20 3 4 20 0 1 0";
        assert_eq!(used(own), Some(127.0));
        assert_eq!(used("no process"), None);
    }

    #[test]
    fn work_of_this_process_is_not_that_of_others() {
        let before = used(&std::fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        let began = Instant::now();
        while began.elapsed().as_millis() < 300 {}
        let after = used(&std::fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        assert!(after > before);
        assert!(Watch::start().unwrap().others().is_ok());
    }
}
