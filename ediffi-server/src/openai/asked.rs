//! A request of a client, understood.

use ediffi::Request;

use super::settings::Settings;

/// What a client asks for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) settings: Settings,
    pub(super) request: Request,
    /// Whether the settings are those of low quality.
    pub(super) low: bool,
}

impl Asked {
    /// The quality that is drawn: that of the preset, or the model's own.
    pub(super) fn quality(&self) -> &'static str {
        if self.low { "low" } else { "high" }
    }
}
