//! Rebuilds the embedded migrations when their folder changes.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
