//! A small matrix with everything in it that a page has to show, losses and failures included.

use crate::matrix::document::Matrix;

/// The document the tests share with the one that opens the page in a browser.
pub fn matrix() -> Matrix {
    serde_json::from_str(include_str!("../../../tests/sample/matrix.json")).unwrap()
}
