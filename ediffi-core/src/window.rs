//! A rectangle of the picture.

/// A part of the picture, in fractions of its height and width: what one tile shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Upper edge, at least 0.
    pub top: f64,
    /// Lower edge, at most 1.
    pub bottom: f64,
    /// Left edge, at least 0.
    pub left: f64,
    /// Right edge, at most 1.
    pub right: f64,
}

impl Window {
    /// The whole picture.
    pub const WHOLE: Self = Self { top: 0.0, bottom: 1.0, left: 0.0, right: 1.0 };

    /// Whether the window holds a pixel and lies inside the picture.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let &Self { top, bottom, left, right } = self;
        // Written so that a NaN fails.
        let inside = |from: f64, to: f64| 0.0 <= from && from < to && to <= 1.0;
        inside(top, bottom) && inside(left, right)
    }
}
