//! Takes the built console into the binary: `console/dist` when somebody built it, else the
//! placeholder beside it, so that this crate builds without Node. With
//! `CULVERT_CONSOLE=required`, as releases are built, the placeholder is an error.
#![allow(clippy::print_stdout, reason = "this is how a build script talks to cargo")]

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let console = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../console");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CULVERT_CONSOLE");
    println!("cargo:rerun-if-changed={}", console.join("dist").display());
    println!("cargo:rerun-if-changed={}", console.join("placeholder").display());
    let folder = chosen(&console)?.canonicalize()?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let taken = out.join("console");
    if taken.exists() {
        fs::remove_dir_all(&taken)?;
    }
    copy(&folder, &taken)?;
    let mut files = Vec::new();
    files_below(&taken, &mut files)?;
    files.sort();
    fs::write(out.join("console.rs"), table(&taken, &files)?)?;
    Ok(())
}

/// The console may be built again while the compiler reads it, so it reads a copy.
fn copy(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    let mut files = Vec::new();
    files_below(from, &mut files)?;
    for file in files {
        let copy = to.join(file.strip_prefix(from)?);
        fs::create_dir_all(copy.parent().unwrap_or(to))?;
        fs::copy(&file, copy)?;
    }
    Ok(())
}

fn chosen(console: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let built = console.join("dist");
    if built.join("index.html").is_file() {
        return Ok(built);
    }
    if env::var("CULVERT_CONSOLE").is_ok_and(|wish| wish == "required") {
        return Err("there is no built console, and a release needs one: run make console".into());
    }
    Ok(console.join("placeholder"))
}

fn files_below(folder: &Path, into: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files_below(&path, into)?;
        } else if path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')) {
            into.push(path);
        }
    }
    Ok(())
}

/// The table of files as Rust; a file's compressed twins stand in its own line.
fn table(folder: &Path, files: &[PathBuf]) -> Result<String, Box<dyn Error>> {
    let mut text = String::from("&[\n");
    for file in files.iter().filter(|file| !is_twin(file)) {
        let path = file.strip_prefix(folder)?.to_str().ok_or("a path of the console is not text")?;
        let twin = |ending: &str| {
            let twin = PathBuf::from(format!("{}.{ending}", file.display()));
            if twin.is_file() { format!("Some(include_bytes!({twin:?}))") } else { "None".to_owned() }
        };
        let (brotli, gzip) = (twin("br"), twin("gz"));
        writeln!(
            text,
            "File {{ path: {:?}, plain: include_bytes!({file:?}), brotli: {brotli}, gzip: {gzip} }},",
            format!("/{path}")
        )?;
    }
    text.push_str("]\n");
    Ok(text)
}

fn is_twin(file: &Path) -> bool {
    file.extension().is_some_and(|ending| ending == "br" || ending == "gz")
}
