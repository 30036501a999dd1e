//! Prompts beside the first: what `encode` reads, and what every command that draws one request takes.

use clap::Args;
use ediffi::{Mix, Request, SigmaInterval};

use super::failure::Failure;
use super::once::expect_once;

/// Prompts beside the first.
#[derive(Args)]
pub(super) struct Texts {
    /// What it shall be guided away from.
    #[arg(long, value_name = "PROMPT")]
    negative: Option<String>,
    /// Another prompt that shares in the picture, as "a dog=0.5".
    ///
    /// Not beside --then.
    #[arg(long, value_name = "PROMPT=SHARE", value_parser = with_number, conflicts_with = "then")]
    mix: Vec<(String, f64)>,
    /// A prompt that takes over below a noise level, as "a dog=5".
    ///
    /// Of several, each has the levels down to the next.
    #[arg(long, value_name = "PROMPT=SIGMA", value_parser = taking_over)]
    then: Vec<(String, f64)>,
    /// What one stage is told instead, as "sr256=a dog".
    #[arg(long, value_name = "STAGE=PROMPT", value_parser = of_stage::<String>)]
    stage_prompt: Vec<(String, String)>,
    /// What one expert of a stage shall be guided away from, as "base.1=blur". A plan has the numbers of the experts.
    #[arg(long, value_name = "STAGE.N=PROMPT", value_parser = of_expert::<String>, hide_short_help = true)]
    expert_negative: Vec<(String, usize, String)>,
    /// Leave the end of a prompt that is too long unread.
    #[arg(long)]
    truncate: bool,
}

impl Texts {
    /// The request with these in place of its own. Prompts that are mixed in take the place of all that it mixes in.
    pub(super) fn apply(&self, mut request: Request) -> Result<Request, Failure> {
        expect_once("--then", self.then.iter().map(|(_, sigma)| sigma.to_string()))?;
        expect_once("--stage-prompt", self.stage_prompt.iter().map(|(stage, _)| stage.clone()))?;
        let experts = self.expert_negative.iter().map(|(stage, expert, _)| format!("{stage}.{expert}"));
        expect_once("--expert-negative", experts)?;
        if let Some(negative) = &self.negative {
            request = request.negative_prompt(negative);
        }
        if !self.mix.is_empty() || !self.then.is_empty() {
            request.mix.clear();
        }
        for (prompt, share) in &self.mix {
            request = request.mix(Mix::new(prompt).share(*share));
        }
        let mut then: Vec<&(String, f64)> = self.then.iter().collect();
        then.sort_by(|(_, a), (_, b)| a.total_cmp(b));
        let mut low = 0.0;
        for (prompt, sigma) in then {
            request = request.mix(Mix::new(prompt).sigma(SigmaInterval::new(low, *sigma)?));
            low = *sigma;
        }
        for (stage, prompt) in &self.stage_prompt {
            request = request.stage_prompt(stage, prompt);
        }
        for (stage, expert, prompt) in &self.expert_negative {
            request = request.expert_negative_prompt(stage, *expert, prompt);
        }
        let truncate = self.truncate || request.truncate;
        Ok(request.truncate(truncate))
    }
}

/// `a dog=0.5`. A prompt may have such a sign itself.
pub(super) fn with_number(text: &str) -> Result<(String, f64), String> {
    let (prompt, number) = text.rsplit_once('=').ok_or("expected PROMPT=NUMBER")?;
    Ok((prompt.to_owned(), number.parse().map_err(|error| format!("{number}: {error}"))?))
}

/// `base=30`.
pub(super) fn of_stage<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<(String, T), String> {
    let (stage, value) = text.split_once('=').ok_or("expected STAGE=VALUE")?;
    Ok((stage.to_owned(), value.parse().map_err(|error| format!("{value}: {error}"))?))
}

/// `base.1=30`. The name of a stage may have a dot itself, but no `=`.
pub(super) fn of_expert<T: std::str::FromStr<Err: std::fmt::Display>>(
    text: &str,
) -> Result<(String, usize, T), String> {
    let (place, value) = of_stage::<T>(text)?;
    let (stage, expert) = place.rsplit_once('.').ok_or("expected STAGE.NUMBER=VALUE")?;
    Ok((stage.to_owned(), expert.parse().map_err(|error| format!("{expert}: {error}"))?, value))
}

/// `a dog=5`.
fn taking_over(text: &str) -> Result<(String, f64), String> {
    let (prompt, sigma) = with_number(text)?;
    SigmaInterval::new(0.0, sigma).map_err(|error| error.to_string())?;
    Ok((prompt, sigma))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        texts: Texts,
    }

    fn applied(arguments: &[&str], request: Request) -> Result<Request, String> {
        let line = Line::try_parse_from([&["ediffi"], arguments].concat()).map_err(|error| error.to_string())?;
        line.texts.apply(request).map_err(|error| error.to_string())
    }

    #[test]
    fn prompts_with_numbers_are_read() {
        assert_eq!(with_number("1 + 1 = 2=0.5"), Ok(("1 + 1 = 2".to_owned(), 0.5)));
        assert!(taking_over("a=-1").is_err() && with_number("a").is_err());
    }

    #[test]
    fn prompts_take_over_one_after_the_other() {
        let request =
            applied(&["--then", "a dog=5", "--then", "a bird=0.5", "--then", "a fox=50"], Request::new("a cat"));
        let mixed: Vec<_> = request.unwrap().mix.into_iter().map(|mix| (mix.prompt, mix.sigma.unwrap())).collect();
        let interval = |low, high| SigmaInterval::new(low, high).unwrap();
        let expected = [("a bird", interval(0.0, 0.5)), ("a dog", interval(0.5, 5.0)), ("a fox", interval(5.0, 50.0))];
        assert_eq!(mixed, expected.map(|(prompt, sigma)| (prompt.to_owned(), sigma)));
        let error = applied(&["--then", "a=5", "--then", "b=5"], Request::new("a cat")).unwrap_err();
        assert_eq!(error, "--then has `5` twice");
        let error = applied(&["--then", "a=5", "--mix", "b=0.5"], Request::new("a cat")).unwrap_err();
        assert!(error.contains("--mix") && error.contains("--then"), "{error}");
    }

    #[test]
    fn what_is_mixed_in_takes_the_place_of_what_was() {
        let request = || Request::new("a cat").mix(Mix::new("a dog").share(0.75)).stage_prompt("base", "a bird");
        assert_eq!(applied(&[], request()).unwrap(), request());
        let mixed = applied(&["--mix", "a fox=0.5"], request()).unwrap().mix;
        assert_eq!(mixed, [Mix::new("a fox").share(0.5)]);
        assert_eq!(applied(&["--then", "a fox=1"], request()).unwrap().mix.len(), 1);
    }
}
