//! Where a model is that an option names.

use std::ffi::OsStr;
use std::path::PathBuf;

use ediffi::{DeviceChoice, Precision};

/// The folder of a model, downloaded first if the name is one on the hub.
#[cfg(feature = "hub")]
pub(super) fn located(named: &OsStr, device: DeviceChoice, precision: Precision) -> Result<PathBuf, ediffi::Error> {
    let Some(name) = named.to_str().and_then(|named| named.strip_prefix("hub:")) else {
        return Ok(PathBuf::from(named));
    };
    let bar = indicatif::ProgressBar::no_length();
    if let Ok(style) =
        indicatif::ProgressStyle::with_template("{msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}")
    {
        bar.set_style(style);
    }
    let seen = bar.clone();
    let model = ediffi::hub::HubPipeline::new(name).device(device).precision(precision).watch(move |fetched| {
        seen.set_message(fetched.file.to_owned());
        seen.set_length(fetched.size);
        seen.set_position(fetched.have);
        std::ops::ControlFlow::Continue(())
    });
    let folder = model.download();
    bar.finish_and_clear();
    folder
}

/// The folder of a model. What is on the hub is refused by the library.
#[cfg(not(feature = "hub"))]
pub(super) fn located(named: &OsStr, device: DeviceChoice, precision: Precision) -> Result<PathBuf, ediffi::Error> {
    ediffi::located(named, device, precision)
}
