//! The two kinds of published stages.

/// Which stage a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublishedStage {
    /// Stage I.
    Base,
    /// Stage II.
    SuperResolution,
}

impl PublishedStage {
    /// How an error calls it.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Base => "a stage I (IF-I-..)",
            Self::SuperResolution => "a stage of super-resolution (IF-II-..)",
        }
    }
}
