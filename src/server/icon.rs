//! The picture a client may show beside the server's name.

use rmcp::model::Icon;

/// A falling loss curve, white on teal with clear corners, which shows on light and on dark. A PNG, since that is what every
/// client that shows icons must know, and as data, since there is no address to fetch it from.
const PICTURE: &str = "data:image/png;base64,\
    iVBORw0KGgoAAAANSUhEUgAAAEAAAABAAgMAAADXB5lNAAAADFBMVEUAAAANbniGtrv///9D4xn8AAAAAXRSTlMAQObYZgAA\
    APFJREFUeNqV1MsRgjAQBuB4oAT6sQQPLMyYAyVQAlVQhQdLSBWW4EHvHuKMrGyiYR8HdG98Qzb/EDbOuQpKHRwVsKLnigO9\
    UnNo1Apas5Owly2oiYFaQmMBVP0EbVTQzwoGNDBpuKgeeNXwkOA1dBhVMHyp6DgrCDwIwciDEAw8CIEIQuD5NgQd34agRbZN\
    +oSBdU0wsvAJetYkgcc1WoKla5TnEtZ9MgyITwFLE7wBHKdylAvgHUIsMGCquUCXAdfTDxmmAl7DpwsDOGuAk2gK3y8n/jEW\
    LBeL/ud/qmB7GrYnygyhGVM7yGbUzWWgros3vKyNViW3j8cAAAAASUVORK5CYII=";

/// The server's icon.
pub(super) fn icon() -> Icon {
    Icon::new(PICTURE)
        .with_mime_type("image/png")
        .with_sizes(vec!["64x64".to_owned()])
}
