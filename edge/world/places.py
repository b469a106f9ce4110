"""Where things are in Adlershof: zones, stations, facilities. Metres of the network's own plane.

The plane is UTM zone 33 less the network's offset: x east, y north, 0..2628 by 0..3334. The
street network fills x 467 to 2418 and y 0 to 1508. Zones follow what people there call the
parts of the place; their borders are straight lines and generated, not official.
"""

from dataclasses import dataclass

ZONES: dict[str, tuple[str, str]] = {
    "station": ("阿德勒斯霍夫车站", "Adlershof station"),
    "johannisthal": ("约翰尼斯塔尔", "Johannisthal"),
    "campus": ("洪堡大学校区", "Humboldt campus"),
    "wista": ("WISTA 科技园", "WISTA technology park"),
    "media-city": ("媒体城", "Media City"),
    "canal": ("泰尔托运河沿岸", "Teltow canal"),
}


@dataclass(frozen=True, slots=True)
class Spot:
    """A generated installation. x, y: metres in the network's plane."""

    id: str
    x: float
    y: float
    zh: str
    en: str


WEATHER = (
    Spot("w-aerodynamic-park", 1300, 900, "空气动力学公园", "Aerodynamic park"),
    Spot("w-landscape-park", 800, 1150, "景观公园", "Landscape park"),
    Spot("w-station", 1990, 1200, "车站广场", "Station square"),
    Spot("w-volmer", 1800, 480, "沃尔默街", "Volmerstraße"),
    Spot("w-studio", 2050, 760, "影视城", "Film studios"),
    Spot("w-canal", 1500, 180, "运河", "Teltow canal"),
    Spot("w-west", 700, 480, "西门", "West gate"),
)

# Roadside stations stand on the longest edge of a street, to follow its traffic.
AIR = (
    Spot("a-adlergestell", 2150, 1060, "阿德勒路", "Adlergestell"),
    Spot("a-rudower-chaussee", 1450, 920, "鲁多夫大道", "Rudower Chaussee"),
    Spot("a-ernst-ruska-ufer", 1300, 240, "恩斯特·鲁斯卡河岸", "Ernst-Ruska-Ufer"),
    Spot("a-gross-berliner-damm", 1300, 1250, "大柏林大堤", "Groß-Berliner Damm"),
    Spot("a-wegedorn", 1030, 300, "韦格多恩街", "Wegedornstraße"),
    Spot("a-campus", 1200, 780, "校区内庭", "Campus court"),
    Spot("a-studio", 1950, 600, "影视城街", "Am Studio"),
)

FACILITIES: tuple[tuple[str, Spot], ...] = (
    ("fire-station", Spot("f-fire", 1080, 900, "消防站(虚拟)", "Fire station (generated)")),
    ("hospital", Spot("f-hospital", 1850, 340, "医院(虚拟)", "Hospital (generated)")),
    ("ambulance", Spot("f-ambulance", 1990, 1150, "急救站(虚拟)", "Ambulance base (generated)")),
)

STADIUM = Spot("stadium", 900, 1000, "体育场(虚拟)", "Stadium (generated)")


def zone_at(x: float, y: float) -> str:
    """The zone of a point in the network's plane."""
    # Rudower Chaussee runs from (554, 452) to (2031, 1222): the campus is north of it.
    north = y > 452 + (x - 554) * 0.5213
    if y < 290:
        return "canal"
    if x > 1830 and y > 900:
        return "station"
    if north:
        return "johannisthal" if y > 1150 or x < 900 else "campus"
    return "media-city" if x > 1700 else "wista"
