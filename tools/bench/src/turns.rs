//! Measuring a row: every side is a process of its own, and they take turns, A B B A …, so that whatever the machine does falls on
//! all of them alike.

use std::fs::{File, create_dir_all, read_to_string};
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::job::{Case, Job};
use crate::prepare::PYTHON_SIDE;
use crate::quiet::Watch;
use crate::result::Result;
use crate::rows::{Program, Row, Side};

/// Where the sides say what they have to say about themselves.
const RUNS: &str = "runs/bench";
/// Between two turns.
const PAUSE: Duration = Duration::from_millis(50);

/// How rows are measured.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) rounds: usize,
    /// How often a side is started to measure loading.
    pub(crate) starts: usize,
    pub(crate) threads: usize,
    pub(crate) python: PathBuf,
}

/// What was measured of a row.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) sides: Vec<Times>,
    /// How many processors' worth of time others used meanwhile.
    pub(crate) others: f64,
}

impl Measured {
    /// Of a row that could not be prepared.
    pub(crate) fn failed(row: &Row, error: &(dyn std::error::Error + Send + Sync)) -> Self {
        eprintln!("{}: {error}", row.name);
        let side = |side: &Side| Times { error: Some(error.to_string()), ..Times::of(side) };
        Self { sides: row.sides.iter().map(side).collect(), others: 0.0 }
    }
}

/// What was measured of one side, in seconds and MB.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) label: String,
    pub(crate) units: Option<f64>,
    /// Loading, of every start.
    pub(crate) loads: Vec<f64>,
    /// The first evaluation after it.
    pub(crate) firsts: Vec<f64>,
    /// Later evaluations, of every round.
    pub(crate) seconds: Vec<f64>,
    pub(crate) peak_mb: Option<f64>,
    /// The weights of the largest part, of a model in parts.
    pub(crate) largest_mb: Option<f64>,
    pub(crate) flop: Option<f64>,
    /// Why it ended early.
    pub(crate) error: Option<String>,
}

impl Times {
    /// Of a side that has not begun.
    fn of(side: &Side) -> Self {
        Self { label: side.label.clone(), units: side.units, ..Self::default() }
    }

    /// Loading and the first evaluation together.
    pub(crate) fn beginnings(&self) -> Vec<f64> {
        self.loads.iter().zip(&self.firsts).map(|(load, first)| load + first).collect()
    }

    fn started(&mut self, reply: &Value) -> Result<()> {
        self.loads.push(number(reply, "ready")?);
        self.firsts.push(number(reply, "first")?);
        self.flop = reply.get("flop").and_then(Value::as_f64).or(self.flop);
        Ok(())
    }
}

/// The sides in the order in which they take this turn.
fn order(turn: usize, sides: usize) -> Vec<usize> {
    let forward = 0..sides;
    if turn.is_multiple_of(2) { forward.collect() } else { forward.rev().collect() }
}

/// Measures a row. A side that fails is left with its error, and the others go on.
pub(crate) fn measure(row: &Row, setup: &Setup) -> Result<Measured> {
    let watch = Watch::start()?;
    let mut sides: Vec<Turns<'_>> = row.sides.iter().map(|side| Turns::new(row, side, setup)).collect();
    let mut take = |turn: usize, what: fn(&mut Turns<'_>) -> Result<()>| {
        for index in order(turn, row.sides.len()) {
            if let Some(side) = sides.get_mut(index).filter(|side| side.times.error.is_none()) {
                side.attempt(what);
            }
        }
    };
    if row.fresh {
        (0..setup.rounds)
            .for_each(|round| take(round, |side| side.start().and_then(|()| side.run()).and_then(|()| side.end())));
    } else {
        // Compiling takes minutes, and is done once.
        let again = |side: &mut Turns<'_>| {
            if side.side.program == Program::Compile { Ok(()) } else { side.start().and_then(|()| side.end()) }
        };
        // The first side goes first: a training leaves the weights for the others to begin with.
        (1..setup.starts).for_each(|start| take(start - 1, again));
        take(0, |side| side.start());
        // One more that is not counted: the first of them is of the beginning.
        take(1, |side| side.warm_up());
        (0..setup.rounds).for_each(|round| take(round, |side| side.run()));
        take(0, |side| side.end());
    }
    let sides = sides.into_iter().map(|side| side.times).collect();
    Ok(Measured { sides, others: watch.others()? })
}

/// A side, and its process while there is one.
struct Turns<'a> {
    side: &'a Side,
    row: &'a Row,
    setup: &'a Setup,
    process: Option<Process>,
    times: Times,
}

impl<'a> Turns<'a> {
    fn new(row: &'a Row, side: &'a Side, setup: &'a Setup) -> Self {
        Self { side, row, setup, process: None, times: Times::of(side) }
    }

    /// Does something; where that fails, keeps the reason and ends the process.
    fn attempt(&mut self, what: fn(&mut Self) -> Result<()>) {
        if let Err(error) = what(self) {
            self.process = None;
            let last = read_to_string(self.log()).unwrap_or_default();
            let last = last.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
            eprintln!("{}, {}: {error}: {last}", self.row.name, self.side.label);
            self.times.error = Some(format!("{error}: {last}"));
        }
    }

    /// What the process writes to its standard error.
    fn log(&self) -> PathBuf {
        Path::new(RUNS).join(format!("{}.{}.log", self.row.name, self.side.label.replace(' ', "-")))
    }

    fn start(&mut self) -> Result<()> {
        create_dir_all(RUNS)?;
        let mut command = command(self.side, &job(self.row, self.side, self.setup), &self.setup.python)?;
        let process = self.process.insert(Process::start(command.stderr(File::create(self.log())?))?);
        self.times.started(&process.reply()?)
    }

    fn turn(&mut self) -> Result<f64> {
        let process = self.process.as_mut().ok_or("it does not run")?;
        // The threads of the side before it spin for a moment before they sleep.
        sleep(PAUSE);
        process.say("run")?;
        number(&process.reply()?, "seconds")
    }

    fn warm_up(&mut self) -> Result<()> {
        self.turn().map(drop)
    }

    fn run(&mut self) -> Result<()> {
        let seconds = self.turn()?;
        self.times.seconds.push(seconds);
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let mut process = self.process.take().ok_or("it does not run")?;
        // What starts a process of its own is not the one that has the memory.
        if !matches!(self.side.case, Case::Start) {
            self.times.peak_mb = process.peak_mb().or(self.times.peak_mb);
        }
        process.say("end")?;
        let status = process.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("it ended with {status}").into()) }
    }
}

/// A side's process, and the two ways to talk with it. It ends with this value.
struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| format!("cannot start {program}: {error}"))?;
        let (input, output) = child.stdin.take().zip(child.stdout.take()).ok_or("a process without pipes")?;
        Ok(Self { child, input, output: BufReader::new(output).lines() })
    }

    fn say(&mut self, word: &str) -> Result<()> {
        writeln!(self.input, "{word}")?;
        Ok(self.input.flush()?)
    }

    /// The next line of JSON; libraries may print other lines.
    fn reply(&mut self) -> Result<Value> {
        for line in self.output.by_ref() {
            let line = line?;
            if line.starts_with('{') {
                return Ok(serde_json::from_str(&line)?);
            }
        }
        Err("it ended without an answer".into())
    }

    /// The most memory that it has had, mapped files included; `None` where the system does not tell.
    fn peak_mb(&self) -> Option<f64> {
        let status = read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0 / 1e6)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds, to a tenth of a microsecond: more digits would only fill the file.
fn number(reply: &Value, key: &str) -> Result<f64> {
    let value = reply.get(key).and_then(Value::as_f64);
    let value = value.ok_or_else(|| format!("its answer {reply} has no number `{key}`"))?;
    Ok((value * 1e7).round() / 1e7)
}

pub(crate) fn job(row: &Row, side: &Side, setup: &Setup) -> Job {
    let compile = side.program == Program::Compile;
    Job { case: side.case.clone(), precision: row.precision, threads: setup.threads, compile }
}

fn command(side: &Side, job: &Job, python: &Path) -> Result<Command> {
    let text = serde_json::to_string(job)?;
    if side.program != Program::Ediffi {
        let mut command = Command::new(python);
        // PyTorch brings libraries of its own.
        command.args([PYTHON_SIDE, "side", &text]).env_remove("LD_LIBRARY_PATH");
        return Ok(command);
    }
    if let Case::Train { network, folder } = &job.case {
        let mut command = Command::new(crate::prepare::built("training_speed")?);
        command.arg(folder).args(["--turns", "--workers", "2", "--network", network]);
        command.args(["--precision", job.precision.name(), "--threads", &job.threads.to_string()]);
        return Ok(command);
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["side", &text]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_take_turns_there_and_back() {
        let turns: Vec<Vec<usize>> = (0..3).map(|turn| order(turn, 3)).collect();
        assert_eq!(turns, [[0, 1, 2], [2, 1, 0], [0, 1, 2]]);
    }

    #[test]
    fn answers_are_the_lines_of_json() {
        let script = "echo a word; echo '{\"ready\":1.5,\"first\":2}'; read word; echo \"{\\\"seconds\\\":$word}\"";
        let mut process = Process::start(Command::new("sh").args(["-c", script])).unwrap();
        let mut times = Times::default();
        times.started(&process.reply().unwrap()).unwrap();
        assert_eq!(times.beginnings(), [3.5]);
        assert!(process.peak_mb().is_none_or(|peak| peak > 0.1));
        process.say("7").unwrap();
        assert_eq!(number(&process.reply().unwrap(), "seconds").unwrap(), 7.0);
        assert!(process.reply().unwrap_err().to_string().contains("without an answer"));
    }

    #[test]
    fn a_side_that_fails_leaves_its_error_and_no_process() {
        let row = crate::rows::limit(crate::job::Precision::F32);
        let setup = Setup { rounds: 1, starts: 1, threads: 1, python: "/no/such/python".into() };
        let side = Side { program: Program::Pytorch, ..row.sides.first().unwrap().clone() };
        let mut turns = Turns::new(&row, &side, &setup);
        turns.attempt(|side| {
            Process::start(&mut command(side.side, &job(side.row, side.side, side.setup), &side.setup.python)?)
                .map(drop)
        });
        let error = turns.times.error.unwrap();
        assert!(error.contains("cannot start /no/such/python") && turns.process.is_none(), "{error}");
    }
}
