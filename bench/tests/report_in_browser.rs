//! Opens the report in a real browser: every cell is in the document it builds, in both themes the
//! picture is no blank page, and a phone does not have to scroll sideways.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that calls them"
)]

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sample/matrix.json");
/// Names under which distributions ship the browser.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// A picture of text and bars is at least this many times as large, compressed, as an empty one.
const DRAWN: u64 = 5;

#[test]
fn every_cell_is_in_the_document() {
    let directory = TempDir::new().unwrap();
    let page = render(directory.path());
    let dom = browse(directory.path(), &["--dump-dom", &page]);
    let dom = String::from_utf8(dom).unwrap();
    let matrix: Value = serde_json::from_slice(&std::fs::read(SAMPLE).unwrap()).unwrap();
    for result in matrix["results"].as_array().unwrap() {
        let wire = result["wire_mtu"]
            .as_u64()
            .map_or(String::new(), |mtu| mtu.to_string());
        let (placement, test) = (text(&result["placement"]), text(&result["test"]));
        let cell = format!("data-cell=\"{placement}/{wire}/{test}\"");
        let card = dom.split("<section").find(|card| card.contains(&cell));
        let card = card.unwrap_or_else(|| panic!("no {cell}"));
        let bar = format!("data-datapath=\"{}\"", text(&result["datapath"]));
        assert!(card.contains(&bar), "no {bar} in {cell}");
    }
}

#[test]
fn the_picture_is_not_blank_in_either_theme() {
    let directory = TempDir::new().unwrap();
    let page = render(directory.path());
    let blank = picture(directory.path(), "about:blank", &[]);
    let light = picture(directory.path(), &page, &[]);
    let dark = picture(
        directory.path(),
        &page,
        &["--blink-settings=preferredColorScheme=0"],
    );
    for drawn in [&light, &dark] {
        let (drawn, blank) = (drawn.len() as u64, blank.len() as u64);
        assert!(
            drawn > DRAWN * blank,
            "{drawn} bytes against {blank} of an empty page"
        );
    }
    assert_ne!(light, dark, "both themes look the same");
}

#[test]
fn a_phone_does_not_scroll_sideways() {
    let directory = TempDir::new().unwrap();
    let page = render(directory.path());
    // The probe is the test's; the page itself has no script.
    let path = page.trim_start_matches("file://");
    let probe = "<iframe id=f width=360 height=800 src=\"report.html\"></iframe><script>onload = () => \
        document.title = document.getElementById('f').contentDocument.documentElement.scrollWidth</script>";
    let outer = Path::new(path).with_file_name("outer.html");
    std::fs::write(&outer, probe).unwrap();
    let address = format!("file://{}", outer.display());
    let dom = browse(
        directory.path(),
        &[
            "--allow-file-access-from-files",
            "--virtual-time-budget=2000",
            "--dump-dom",
            &address,
        ],
    );
    let dom = String::from_utf8(dom).unwrap();
    let width = dom
        .split("<title>")
        .nth(1)
        .and_then(|rest| rest.split('<').next());
    let width: u32 = width
        .and_then(|width| width.parse().ok())
        .unwrap_or_else(|| panic!("{dom}"));
    assert!(width <= 360, "the page is {width} wide");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The sample's page, as an address.
fn render(directory: &Path) -> String {
    let page = directory.join("report.html");
    let status = Command::new(env!("CARGO_BIN_EXE_weft-bench"))
        .args(["report", SAMPLE, "--html"])
        .arg(&page)
        .status();
    assert!(status.unwrap().success());
    format!("file://{}", page.display())
}

fn picture(directory: &Path, address: &str, extra: &[&str]) -> Vec<u8> {
    let file = directory.join("picture.png");
    let screenshot = format!("--screenshot={}", file.display());
    let mut arguments = vec!["--window-size=1200,2400", &screenshot];
    arguments.extend(extra);
    arguments.push(address);
    browse(directory, &arguments);
    std::fs::read(&file).unwrap()
}

/// Runs the browser without a window; what it prints.
fn browse(directory: &Path, arguments: &[&str]) -> Vec<u8> {
    let profile = format!("--user-data-dir={}", directory.join("profile").display());
    let usual = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        &profile,
    ];
    for browser in BROWSERS {
        let Ok(output) = Command::new(browser).args(usual).args(arguments).output() else {
            continue;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{browser}: {said}");
        return output.stdout;
    }
    panic!("no browser; `perf-scripts/setup.sh test` installs chromium");
}
