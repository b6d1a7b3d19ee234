"""The catalogue: what every metric means, and where it is read."""

from app.catalog.entries import Catalogue, Event, Label, Metric
from app.catalog.loading import CatalogueSurvey, load, load_folder, survey_folder, survey_texts

__all__ = [
    "Catalogue",
    "CatalogueSurvey",
    "Event",
    "Label",
    "Metric",
    "load",
    "load_folder",
    "survey_folder",
    "survey_texts",
]
