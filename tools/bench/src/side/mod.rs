//! A side of this library: a process that loads, and then evaluates once for every line `run` that it reads.

mod networks;
mod random;
mod ready;
mod stages;
mod whole;

use std::io::{BufRead as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

use ediffi_core::runtime::{DeviceChoice, Runtime};
use serde_json::{Value, json};

use self::ready::Ready;
use crate::job::{Case, Job, Precision};
use crate::result::Result;

/// Serves a job until its input ends.
pub(crate) fn serve(job: &Job) -> Result<()> {
    tch::set_num_threads(i32::try_from(job.threads)?);
    let _no_grad = tch::no_grad_guard();
    let began = Instant::now();
    let Ready { mut evaluate, flop } = open(job)?;
    let load = began.elapsed().as_secs_f64();
    let first = evaluate()?;
    say(&json!({ "ready": load, "first": first, "flop": flop }))?;
    for line in std::io::stdin().lock().lines() {
        if line?.trim() != "run" {
            break;
        }
        say(&json!({ "seconds": evaluate()? }))?;
    }
    Ok(())
}

fn open(job: &Job) -> Result<Ready> {
    let choice = match job.precision {
        Precision::F32 => ediffi_core::runtime::Precision::F32,
        Precision::Bf16 => ediffi_core::runtime::Precision::Bf16,
    };
    let runtime = Runtime::new(DeviceChoice::Cpu, choice)?;
    match &job.case {
        Case::Published { folder, pictures, side } => networks::published(folder, 2 * pictures, *side, runtime),
        Case::Alternative { network, rows, side } => networks::alternative(network, *rows, *side, runtime),
        Case::Shipped { stage, rows, side } => networks::shipped(stage, *rows, *side, runtime),
        Case::T5 { folder, text, tokens } => networks::t5(folder, text.clone(), *tokens, runtime),
        Case::ClipText { folder, text } => networks::clip_text(folder, text.clone(), runtime),
        Case::ClipImage { folder } => networks::clip_image(folder, runtime),
        Case::Limit { product } => networks::limit(*product, runtime),
        Case::Many { different } => stages::many(*different, choice),
        Case::Stage(stage) => stages::open(stage.clone(), choice),
        Case::Whole { folder, refiner, text, steps } => whole::open((folder, refiner.as_deref()), text, steps, choice),
        Case::Start => Ok(Ready::timing(first_picture)),
        Case::Train { .. } => Err("training has a program of its own".into()),
    }
}

/// A whole process, from its start to its end.
fn first_picture() -> Result<()> {
    let program = crate::prepare::built("ediffi")?;
    let mut command = Command::new(&program);
    command.args(["draw", "--device", "cpu", "--out", "runs/bench/start.png", "a red apple left of a cat"]);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let status = status.map_err(|error| format!("{}: {error}", program.display()))?;
    if status.success() { Ok(()) } else { Err(format!("{} failed ({status})", program.display()).into()) }
}

fn say(reply: &Value) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{reply}")?;
    Ok(output.flush()?)
}
