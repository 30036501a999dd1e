//! Prompts of a request beside its first: mixed in, and those of single stages.

use std::collections::BTreeMap;

use ediffi_cascade::Share;
use ediffi_core::interval::SigmaInterval;
use serde::{Deserialize, Serialize};

/// Another prompt in the same picture.
///
/// - **By weight:** the denoiser's estimate is the mean of those under both prompts, by their shares ("composable diffusion", Liu et al. 2022,
///   [arXiv 2206.01714](https://arxiv.org/abs/2206.01714)). Each prompt with a share costs an evaluation of its own.
/// - **Along the noise:** with a share of 1 at some noise levels the other prompt stands there in the place of the request's, at no cost.
///   High levels decide where things are, low ones how they look.
///
/// ```
/// use ediffi::{Mix, Request, SigmaInterval};
///
/// // Half of each.
/// let both = Request::new("a cat").mix(Mix::new("a dog").share(0.5));
/// // Laid out as a cat, finished as a dog.
/// let later = Request::new("a cat").mix(Mix::new("a dog").sigma(SigmaInterval::new(0.0, 5.0)?));
/// # Ok::<(), ediffi_core::Error>(())
/// ```
///
/// Style, negative prompt and guidance are the same for all prompts. What is [painted](crate::Canvas) are words of the request's own prompt; a
/// canvas is refused where that has no share at any noise level of the first stage.
///
/// In JSON: `{"prompt": "a dog", "share": 0.5, "sigma": [1.0, null]}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
#[must_use]
pub struct Mix {
    /// The other prompt.
    pub prompt: String,
    /// How much of the estimate is its, from 0 to 1 (default: 1). What the shares leave is the request's own prompt's.
    #[serde(default = "whole", skip_serializing_if = "is_whole")]
    pub share: f64,
    /// The noise levels at which it counts, in every stage (default: all).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigma: Option<SigmaInterval>,
}

fn whole() -> f64 {
    1.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_whole(share: &f64) -> bool {
    *share == whole()
}

impl Mix {
    /// Another prompt that takes over entirely: alone, it stands in the place of the request's own prompt at every noise level, and that is
    /// not drawn at all. Set a [share](Self::share) or [noise levels](Self::sigma) to leave it something.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self { prompt: prompt.into(), share: whole(), sigma: None }
    }

    /// Sets how much of the estimate is its: see the field [`share`](field@Self::share).
    pub fn share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// Sets the noise levels at which it counts.
    pub fn sigma(mut self, sigma: SigmaInterval) -> Self {
        self.sigma = Some(sigma);
        self
    }

    /// As the loop of stages takes it.
    pub(crate) fn shared(&self) -> Share {
        Share { share: self.share, sigma: self.sigma.unwrap_or(SigmaInterval::ALL) }
    }
}

/// What one stage is told in the place of the request's own texts. What is `None` stays as the request has it.
///
/// In JSON: `"stage_prompts": {"sr256": {"prompt": "fine fur", "negative_prompt": "blur"}}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct StagePrompt {
    /// The stage's prompt. An empty one is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// What guidance leads away from in this stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<String>,
    /// What guidance leads single experts of this stage away from, by their numbers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub expert_negative_prompts: BTreeMap<usize, String>,
}

impl StagePrompt {
    /// Those that are set.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &String> {
        self.prompt.iter().chain(&self.negative_prompt).chain(self.expert_negative_prompts.values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_is_not_written() {
        assert_eq!(serde_json::to_string(&Mix::new("a dog")).unwrap(), r#"{"prompt":"a dog"}"#);
        assert_eq!(serde_json::from_str::<Mix>(r#"{"prompt":"a dog"}"#).unwrap(), Mix::new("a dog"));
        let error = serde_json::from_str::<Mix>(r#"{"prompt":"a","weight":1}"#).unwrap_err().to_string();
        assert!(error.contains("weight"), "{error}");
    }
}
