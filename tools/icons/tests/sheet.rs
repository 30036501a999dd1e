//! Contact sheets.

use train_icons::error::IconsError;
use train_icons::sheet;

#[test]
fn pictures_lie_in_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sheet.png");
    let pictures: Vec<Vec<u8>> = (0..5).map(|shade| vec![shade * 50; 4 * 4 * 3]).collect();
    sheet::write(&path, &pictures, 4, 3).unwrap();
    let read = image::open(&path).unwrap().to_rgb8();
    assert_eq!(read.dimensions(), (20, 14));
    for (place, shade) in [((2, 2), 0), ((8, 2), 50), ((14, 5), 100), ((2, 8), 150), ((11, 11), 200), ((15, 9), 128)] {
        assert_eq!(read.get_pixel(place.0, place.1).0, [shade; 3], "{place:?}");
    }
}

#[test]
fn a_sheet_that_cannot_be_written_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let lost = sheet::write(&folder.path().join("nowhere/sheet.png"), &[vec![0; 12]], 2, 1);
    assert!(matches!(lost, Err(IconsError::Core(ediffi_core::Error::WriteFile { .. }))));
}
