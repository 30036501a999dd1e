//! A PNG file with a request in its texts, from anyone.
#![no_main]

use ediffi::{Provenance, Request};
use ediffi_fuzz::{checked, peak, target};
use png::text_metadata::ITXtChunk;

target!(run);

fn run(data: &[u8]) {
    let (read, bytes) = peak(|| checked(Request::from_png_bytes(data)));
    // The texts of a file may be 64 MB, unpacked, and the decoder holds as much again.
    assert!(bytes <= (320 << 20) + 64 * data.len(), "a file of {} bytes took {bytes}", data.len());
    if let Some(made) = checked(Provenance::from_png_bytes(data)) {
        assert_eq!(made.differences(&made), Vec::<String>::new());
    }
    if let Some(request) = read {
        let again = checked(Request::from_png_bytes(&written(&request))).expect("what was read can be written");
        assert!(again == request, "a request comes back from PNG as another one");
    }
}

/// A file with this request.
fn written(request: &Request) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = png::Encoder::new(&mut bytes, 1, 1).write_header().unwrap();
    for (keyword, text) in
        [("ediffi:request", serde_json::to_string(request).unwrap()), ("ediffi:seed", "0".to_owned())]
    {
        writer.write_text_chunk(&ITXtChunk::new(keyword, text)).unwrap();
    }
    writer.write_image_data(&[0]).unwrap();
    writer.finish().unwrap();
    bytes
}
