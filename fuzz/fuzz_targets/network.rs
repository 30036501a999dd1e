//! The dimensions of a U-Net, as `config.json` has them.
#![no_main]

use ediffi_core::unet::{UNet, UNetConfig};
use ediffi_core::weights::{Scope, Table};
use ediffi_fuzz::{checked, peak, target};
use tch::Kind;

target!(run);

fn run(data: &[u8]) {
    let (read, bytes) = peak(|| serde_json::from_slice::<UNetConfig>(data));
    assert!(bytes <= (1 << 16) + 256 * data.len(), "dimensions of {} bytes took {bytes}", data.len());
    let Ok(config) = read else { return };
    let json = serde_json::to_string(&config).unwrap();
    assert!(serde_json::from_str::<UNetConfig>(&json).unwrap() == config, "dimensions come back as others: {json}");
    if checked(config.validate()).is_none() {
        return;
    }
    assert!(config.io().size_multiple >= 1 && config.io().channels >= 1);
    let (table, bytes) = peak(|| checked(Table::of(|scope: Scope<'_>| UNet::new(scope, &config, Kind::Float))));
    assert!(bytes <= 64 << 20, "the list of the parameters took {bytes}");
    if let Some(table) = table {
        assert!(table.elements() > 0, "a network of {} parameters", table.elements());
    }
}
