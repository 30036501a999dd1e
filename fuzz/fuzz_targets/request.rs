//! A request as JSON, from anyone: read, written, checked against the shipped model.
#![no_main]

use ediffi::{Pipeline, Request};
use ediffi_fuzz::{checked, fixture, peak, target};

target!(run);

thread_local! {
    static ICONS: Pipeline = Pipeline::open(fixture("models/icons")).unwrap();
}

fn run(data: &[u8]) {
    let (read, bytes) = peak(|| checked(Request::from_json(data)));
    // The decoder that reads the header of a picture takes 150 kB.
    assert!(bytes <= (1 << 20) + 64 * data.len(), "a request of {} bytes took {bytes}", data.len());
    let Some(request) = read else { return };
    let json = serde_json::to_string(&request).unwrap();
    let again: Request = serde_json::from_str(&json).unwrap();
    assert!(again == request, "a request comes back as another one: {json}");
    ICONS.with(|icons| {
        let (valid, bytes) = peak(|| checked(icons.validate(&request)));
        assert!(bytes <= (4 << 20) + 256 * data.len(), "checking {} bytes took {bytes}", data.len());
        if valid.is_some() {
            checked(icons.plan(&request)).expect("a request that was accepted has a plan");
        }
    });
}
