//! The committed OpenAPI document is the one that the router declares.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use rackmem_controller::Controller;

#[test]
fn the_committed_document_is_that_of_the_router() {
    let document = rackmem_api::controller::document::<Controller>().to_pretty_json().unwrap() + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../api/openapi/controller.json");
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(path, &document).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap();
    assert!(
        committed == document,
        "openapi/controller.json is not what the routes declare. If the API was meant to change, run \
         `UPDATE_OPENAPI=1 cargo nextest run -p rackmem-controller --test openapi` and commit the document"
    );
}
