//! The command line.

/// What `cargo xtask help` prints.
pub(crate) const USAGE: &str = "\
cargo xtask COMMAND

  setup [--cuda]                               install libtorch into this checkout (--cuda: with the CUDA libraries)
  demo [\"PROMPT\"] [--seed N] [--out FILE]      set up if needed, draw a picture, print its path (default: out.png)
  bench [NAME ...] [OPTIONS]                   measure beside PyTorch and write the tables (--help: the options)
  soak [OPTIONS]                               serve, kill and damage for long (--help: the options)
  fuzz [TARGET ...] [--seconds N] [--jobs N]   try inputs on every reader, N seconds each (default: 120), two at a time
       [--write FILE] [--replay FILE]          (--write: put the table into a document; --replay: one input, one target)
  test                                         set up if needed, run every test, print how many passed
  ci                                           formatting, structure, licences, clippy, docs, packages, fuzzing and tests
  deny                                         check licences and sources of what is built in (no libtorch)
  downstream                                   build a program outside the workspace from the packaged crates, and run it
  semver [--against REV]                       compare the interfaces of the crates with the last tag, or with REV
  structure                                    check the layout: circles, arrows, lengths, links (no libtorch)
  cuda-pack                                    pack the tests for a machine with a GPU and no Rust: cuda-pack/
  icons                                        fetch the icon packages and build the sprite pack for training
  enlarger                                     fetch Real-ESRGAN's networks for the last enlargement, and convert them
  lite0                                        fetch the network that `evaluate seen` compares patches by
  help                                         this text
";

/// A command line that makes sense.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    Help,
    Setup {
        cuda: bool,
    },
    Demo(Demo),
    /// With what the bench itself reads.
    Bench(Vec<String>),
    /// With what the soak itself reads.
    Soak(Vec<String>),
    Fuzz(Fuzz),
    Test,
    Ci,
    Deny,
    Downstream,
    Semver {
        /// A revision in the place of the last tag.
        against: Option<String>,
    },
    Structure,
    CudaPack,
    Icons,
    Enlarger,
    Lite0,
}

/// What `demo` draws, and where to.
#[derive(Debug, PartialEq)]
pub(crate) struct Demo {
    pub(crate) prompt: String,
    pub(crate) seed: Option<u64>,
    pub(crate) out: String,
}

impl Default for Demo {
    fn default() -> Self {
        Self { prompt: "a red apple".to_owned(), seed: None, out: "out.png".to_owned() }
    }
}

/// Which readers `fuzz` tries inputs on, and for how long.
#[derive(Debug, PartialEq)]
pub(crate) struct Fuzz {
    /// All, if none is named.
    pub(crate) targets: Vec<String>,
    /// Seconds for each.
    pub(crate) seconds: u64,
    /// How many run beside each other.
    pub(crate) jobs: usize,
    /// The document that the table is put into.
    pub(crate) write: Option<String>,
    /// The one input that is tried.
    pub(crate) replay: Option<String>,
}

impl Default for Fuzz {
    fn default() -> Self {
        Self { targets: Vec::new(), seconds: 120, jobs: 2, write: None, replay: None }
    }
}

/// Reads the arguments after `cargo xtask`.
pub(crate) fn parse(arguments: &[String]) -> Result<Command, String> {
    let Some((command, rest)) = arguments.split_first() else {
        return Ok(Command::Help);
    };
    let known = match (command.as_str(), rest) {
        ("help" | "--help" | "-h", _) => return Ok(Command::Help),
        ("demo", _) => return parse_demo(rest).map(Command::Demo),
        ("bench", _) => return Ok(Command::Bench(rest.to_vec())),
        ("soak", _) => return Ok(Command::Soak(rest.to_vec())),
        ("fuzz", _) => return parse_fuzz(rest).map(Command::Fuzz),
        ("setup", [flag]) if flag == "--cuda" => return Ok(Command::Setup { cuda: true }),
        ("setup", [other, ..]) => return Err(misuse(&format!("`setup` takes `--cuda` or nothing, not {other:?}"))),
        ("setup", []) => Command::Setup { cuda: false },
        ("semver", [flag, revision]) if flag == "--against" => {
            return Ok(Command::Semver { against: Some(revision.clone()) });
        }
        ("semver", [other, ..]) => {
            return Err(misuse(&format!("`semver` takes `--against REV` or nothing, not {other:?}")));
        }
        ("semver", []) => Command::Semver { against: None },
        ("test", _) => Command::Test,
        ("ci", _) => Command::Ci,
        ("deny", _) => Command::Deny,
        ("downstream", _) => Command::Downstream,
        ("structure", _) => Command::Structure,
        ("cuda-pack", _) => Command::CudaPack,
        ("icons", _) => Command::Icons,
        ("enlarger", _) => Command::Enlarger,
        ("lite0", _) => Command::Lite0,
        (other, _) => return Err(misuse(&format!("there is no command {other:?}"))),
    };
    match rest {
        [] => Ok(known),
        [argument, ..] => Err(misuse(&format!("`{command}` takes no arguments, got {argument:?}"))),
    }
}

fn parse_demo(arguments: &[String]) -> Result<Demo, String> {
    let mut demo = Demo::default();
    let mut prompt = None;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let (flag, inline) = match argument.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => (flag, Some(value)),
            _ => (argument.as_str(), None),
        };
        let mut value = || {
            let value = inline.or_else(|| rest.next().map(String::as_str));
            value.ok_or_else(|| misuse(&format!("`{flag}` needs a value")))
        };
        match flag {
            "--seed" => {
                let text = value()?;
                let seed = text.parse().map_err(|_| {
                    misuse(&format!("`--seed` takes a whole number from 0 to {}, not {text:?}", u64::MAX))
                })?;
                demo.seed = Some(seed);
            }
            "--out" => value()?.clone_into(&mut demo.out),
            other if other.starts_with('-') => return Err(misuse(&format!("`demo` has no option {other:?}"))),
            _ if prompt.is_some() => return Err(misuse("`demo` takes one prompt: put it in quotes")),
            _ => prompt = Some(argument.clone()),
        }
    }
    if let Some(prompt) = prompt {
        demo.prompt = prompt;
    }
    Ok(demo)
}

fn parse_fuzz(arguments: &[String]) -> Result<Fuzz, String> {
    let mut fuzz = Fuzz::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| misuse(&format!("`{argument}` needs a value")));
        match argument.as_str() {
            "--seconds" => fuzz.seconds = counted(argument, value()?)?,
            "--jobs" => fuzz.jobs = counted(argument, value()?)? as usize,
            "--write" => fuzz.write = Some(value()?.clone()),
            "--replay" => fuzz.replay = Some(value()?.clone()),
            other if other.starts_with('-') => return Err(misuse(&format!("`fuzz` has no option {other:?}"))),
            target => fuzz.targets.push(target.to_owned()),
        }
    }
    Ok(fuzz)
}

fn counted(flag: &str, text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (1..=1_000_000).contains(number));
    number.ok_or_else(|| misuse(&format!("`{flag}` takes a whole number from 1 to 1000000, not {text:?}")))
}

fn misuse(problem: &str) -> String {
    format!("error: {problem}\n\n{USAGE}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(arguments: &[&str]) -> Result<Command, String> {
        parse(&arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn every_command_is_in_the_usage_text_and_parses() {
        for name in [
            "setup",
            "demo",
            "bench",
            "soak",
            "fuzz",
            "test",
            "ci",
            "deny",
            "downstream",
            "semver",
            "structure",
            "icons",
            "enlarger",
            "lite0",
            "help",
        ] {
            assert!(line(&[name]).is_ok(), "{name}");
            let lines = USAGE.lines().filter(|line| line.trim_start().starts_with(name)).count();
            assert_eq!(lines, 1, "{name}");
        }
        assert_eq!(line(&[]), Ok(Command::Help));
    }

    #[test]
    fn demo_takes_its_options_in_any_order() {
        let expected = Demo { prompt: "two cats".into(), seed: Some(7), out: "a/b.png".into() };
        assert_eq!(line(&["demo", "--seed", "7", "two cats", "--out=a/b.png"]), Ok(Command::Demo(Demo { ..expected })));
        assert_eq!(line(&["demo"]), Ok(Command::Demo(Demo::default())));
    }

    #[test]
    fn an_equals_sign_in_the_prompt_is_just_text() {
        let Ok(Command::Demo(demo)) = line(&["demo", "x = y"]) else { panic!("not a demo") };
        assert_eq!(demo.prompt, "x = y");
    }

    #[test]
    fn fuzz_takes_targets_and_options_in_any_order() {
        let targets = vec!["png".to_owned(), "plan".to_owned()];
        let expected = Fuzz { targets, seconds: 5, jobs: 1, write: Some("a.md".to_owned()), replay: None };
        let arguments = ["fuzz", "png", "--seconds", "5", "--write", "a.md", "--jobs", "1", "plan"];
        assert_eq!(line(&arguments), Ok(Command::Fuzz(expected)));
        assert_eq!(line(&["fuzz"]), Ok(Command::Fuzz(Fuzz::default())));
    }

    #[test]
    fn setup_takes_cuda_only() {
        assert_eq!(line(&["setup", "--cuda"]), Ok(Command::Setup { cuda: true }));
        assert!(line(&["setup", "cuda"]).is_err());
        assert!(line(&["setup", "--cuda", "--cuda"]).is_err());
    }

    #[test]
    fn semver_takes_a_revision() {
        let against = |revision: Option<&str>| Ok(Command::Semver { against: revision.map(str::to_owned) });
        assert_eq!(line(&["semver"]), against(None));
        assert_eq!(line(&["semver", "--against", "v0.1.0"]), against(Some("v0.1.0")));
    }

    #[test]
    fn misuse_names_the_culprit_and_shows_the_usage() {
        let cases: [(&[&str], &str); 12] = [
            (&["tset"], "tset"),
            (&["test", "extra"], "extra"),
            (&["demo", "--seed", "-1"], "-1"),
            (&["demo", "--seed"], "--seed"),
            (&["demo", "--outt", "x"], "--outt"),
            (&["demo", "two", "prompts"], "quotes"),
            (&["setup", "--gpu"], "--gpu"),
            (&["fuzz", "--seconds", "0"], "\"0\""),
            (&["fuzz", "--jobs"], "--jobs"),
            (&["fuzz", "--hours", "1"], "--hours"),
            (&["semver", "v1"], "v1"),
            (&["semver", "--against"], "--against"),
        ];
        for (arguments, culprit) in cases {
            let message = line(arguments).unwrap_err();
            assert!(message.lines().next().is_some_and(|line| line.contains(culprit)), "{message}");
            assert!(message.ends_with(USAGE), "{message}");
        }
    }
}
