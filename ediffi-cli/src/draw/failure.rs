//! Why a command failed, and the exit code that says so.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use ediffi_server::ServerError;

use crate::refused::REFUSED;
use crate::tell::tell;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// What happened, then its causes.
    lines: Vec<String>,
    told: bool,
}

impl Failure {
    /// A request, or several, that are refused before anything is drawn.
    pub(crate) fn refused(lines: Vec<String>) -> Self {
        Self { code: REFUSED, lines, told: false }
    }

    /// Arguments that make no sense, or would destroy something.
    pub(crate) fn usage(reason: impl Into<String>) -> Self {
        Self::refused(vec![reason.into()])
    }

    /// The same, of something that is named.
    pub(crate) fn of(mut self, name: &str) -> Self {
        if let Some(first) = self.lines.first_mut() {
            *first = format!("{name}: {first}");
        }
        self
    }

    /// What failed with a file, by its name. That it cannot be read says the name already.
    pub(crate) fn of_file(error: ediffi::Error, path: &Path) -> Self {
        let named = matches!(error, ediffi::Error::ReadFile { .. });
        let failure = Self::from(error);
        if named { failure } else { failure.of(&path.display().to_string()) }
    }

    /// Says it on standard error, once.
    pub(crate) fn tell(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            tell(&format!("error: {self}"));
        }
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        match error.downcast_ref() {
            Some(ediffi::Error::InvalidRequest { problems }) => {
                return Self::refused(problems.iter().map(ToString::to_string).collect());
            }
            Some(ediffi::Error::RequestJson(source)) => return Self::refused(vec![format!("the request: {source}")]),
            _ => {}
        }
        match error.downcast_ref() {
            Some(ediffi_cluster::Error::NotBuilt { feature }) => {
                let line = format!("this command was built without the transport {feature}");
                return Self::refused(vec![format!("{line}: build it with the features draw and {feature}")]);
            }
            Some(groups @ ediffi_cluster::Error::Groups { .. }) => return Self::refused(vec![groups.to_string()]),
            _ => {}
        }
        let refused = is_refusal(error.downcast_ref())
            || is_idle(error.downcast_ref())
            || matches!(error.downcast_ref(), Some(ServerError::Open(_) | ServerError::SameName(_)));
        let code = if refused { REFUSED } else { 1 };
        let mut lines = vec![error.to_string()];
        let mut cause = error.source();
        while let Some(error) = cause {
            lines.push(format!("because: {error}"));
            cause = error.source();
        }
        Self { code, lines, told: false }
    }
}

/// An option that does nothing on this model, and texts that are not in a file of embeddings.
fn is_idle(error: Option<&ediffi::Error>) -> bool {
    matches!(error, Some(ediffi::Error::IdleOption { .. } | ediffi::Error::EmbeddingsOfAnother(_)))
}

/// A plan that makes no sense, and a folder that is not for it.
fn is_refusal(error: Option<&ediffi_trainer::Error>) -> bool {
    use ediffi_trainer::Error as E;
    matches!(
        error,
        Some(
            E::Plan { .. }
                | E::PlanText { .. }
                | E::PlanFile { .. }
                | E::UnknownPlan { .. }
                | E::Exists { .. }
                | E::OtherRun { .. }
                | E::NoRun { .. }
                | E::Start { .. }
                | E::OtherNetwork { .. }
                | E::TooLittle { .. }
        )
    )
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n  "))
    }
}
