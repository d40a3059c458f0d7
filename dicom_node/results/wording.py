"""The sentences of a report in words, in each language that it can be had in."""

from __future__ import annotations

from dataclasses import dataclass

from engines.findings import Code


@dataclass(frozen=True, kw_only=True, slots=True)
class Wording:
    """One language's headings and sentences; what stands in braces is filled in."""

    #: Language of the text (RFC 5646), as a report's content tree names it.
    language: Code
    #: Stands between a word and what is said of it, between sentences, and between the parts of a list.
    colon: str
    gap: str
    comma: str
    #: Around what explains the words before it.
    aside: str

    title: str
    not_verified: str
    research_only: str
    about: str
    about_one: str
    #: Of each further series.
    beside: str
    study_of: str
    undated: str
    series: str

    conclusion: str
    measurements: str
    comparison: str
    limits: str
    pictures: str
    #: A picture of one slice of several, and of an image alone.
    picture: str
    single: str
    #: Heads of the columns: what, where, value, threshold; and then earlier, now, change.
    columns: tuple[str, str, str, str]
    compared: tuple[str, str, str]

    urgent: str
    present: str
    absent: str
    none_present: str
    no_statement: str
    nothing: str
    not_segmented: str
    threshold: str
    above: str
    at_least: str
    below: str
    between: str
    #: Of a class; of a box; and what a detector or an image-to-image model made.
    probability: str
    certainty: str
    found: str
    derived: str
    #: Of segments together that are too many to name.
    more: str
    whole_image: str
    not_computed: str

    compared_with: str
    compared_series: str
    nothing_earlier: str
    nothing_alike: str
    points: str

    replaces: str
    performed_after_all: str
    left_out: str
    note: str
    model: str
    intended_use: str
    made: str
    #: Of a printed report: who it is about, and the page.
    patient: str
    patient_id: str
    birth_date: str
    sex: str
    accession: str
    study: str
    page: str
    missing_letters: str


_ENGLISH = Wording(
    language=Code(value="en-US", scheme="RFC5646", meaning="English (United States)"),
    colon=": ",
    gap=" ",
    comma=", ",
    aside=" ({})",
    title="AI report: {name} {version}",
    not_verified="AI result, not verified by a physician.",
    research_only="For research only, not for diagnosis.",
    about="Analysed: {images} images, {what}",
    about_one="Analysed: 1 image, {what}",
    beside="; with {role}{what} (images: {images})",
    study_of="study of {date}",
    undated="without a date",
    series='series "{description}"',
    conclusion="Conclusion",
    measurements="Measurements",
    comparison="Comparison",
    limits="Limits and origin",
    pictures="Key images",
    single="Image {number}",
    picture="Image {number}, slice {slice} of {slices}",
    columns=("Measurement", "Where", "Value", "Threshold"),
    compared=("Earlier", "Now", "Change"),
    urgent="URGENT",
    present="present",
    absent="absent",
    none_present="No findings: nothing of what this model looks for is present.",
    no_statement="The model makes no statement on findings; it measured what is listed below.",
    nothing="The model found nothing to outline or to measure, and makes no statement on findings.",
    not_segmented="Not found in the images: {labels}.",
    threshold="threshold {bound}",
    above="above {value}",
    at_least="at least {value}",
    below="below {value}",
    between="between {low} and {high}",
    probability="probability of {about}",
    certainty="certainty {value}",
    found="Found: {things}.",
    derived="The model made a derived series of the images: {label}.",
    more="{count} more",
    whole_image="whole image",
    not_computed="could not be computed",
    compared_with="Compared with the {study}, analysed by {name} {version}.",
    compared_series="{study}, {series}",
    nothing_earlier="No earlier result of this model for this patient is known here.",
    nothing_alike="No measurement was made in both.",
    points="percentage points",
    replaces="Revision {revision}: replaces revision {earlier} of {moment}, since images came late or were replaced.",
    performed_after_all='An earlier document says "AI not performed" of this series: it was performed since.',
    left_out="There is no Segmentation of what was found: {reason}.",
    note="About the images: {note}",
    model="Model: {name} {version}, {manufacturer} (digest {digest}), on {engine}.",
    intended_use="Intended use: {text}",
    made="Made by secondread {version} on {moment}.",
    patient="Patient",
    patient_id="Patient ID",
    birth_date="Born",
    sex="Sex",
    accession="Accession number",
    study="Study",
    page="Page {page} of {pages}",
    missing_letters="Letters that this page cannot show are written as {letter}.",
)

_CHINESE = Wording(
    language=Code(value="zh-CN", scheme="RFC5646", meaning="Chinese (S)"),
    colon="：",
    gap="",
    comma="，",
    aside="（{}）",
    title="人工智能报告：{name} {version}",
    not_verified="人工智能结果，未经医师核实。",
    research_only="仅供研究，不得用于诊断。",
    about="分析对象：{images} 幅图像，{what}",
    about_one="分析对象：1 幅图像，{what}",
    beside="；另有 {role}{what}（{images} 幅图像）",
    study_of="{date} 的检查",
    undated="日期不详",
    series="序列“{description}”",
    conclusion="结论",
    measurements="测量值",
    comparison="与既往结果对比",
    limits="局限性与来源",
    pictures="关键图像",
    single="图像 {number}",
    picture="图像 {number}，第 {slice} 层，共 {slices} 层",
    columns=("项目", "部位", "数值", "阈值"),
    compared=("既往", "本次", "变化"),
    urgent="紧急",
    present="存在",
    absent="未见",
    none_present="未见异常发现：本模型所检测的项目均未见。",
    no_statement="本模型不对异常发现作出判断；测量结果见下。",
    nothing="本模型未勾画或测量到任何内容，也不对异常发现作出判断。",
    not_segmented="图像中未找到：{labels}。",
    threshold="阈值：{bound}",
    above="高于 {value}",
    at_least="不低于 {value}",
    below="低于 {value}",
    between="{low} 至 {high} 之间",
    probability="{about}的概率",
    certainty="置信度 {value}",
    found="检出：{things}。",
    derived="本模型生成了一个派生图像序列：{label}。",
    more="另 {count} 项",
    whole_image="整幅图像",
    not_computed="无法计算",
    compared_with="对比对象：{study}，由 {name} {version} 分析。",
    compared_series="{study}，{series}",
    nothing_earlier="本系统中没有该患者由本模型得出的既往结果。",
    nothing_alike="两次之间没有相同的测量项目。",
    points="个百分点",
    performed_after_all="此前的文件称本序列“未进行 AI 分析”：现已完成分析。",
    replaces="第 {revision} 版：因图像迟到或被替换，取代 {moment} 的第 {earlier} 版。",
    left_out="未生成所见内容的分割对象：{reason}",
    note="关于图像：{note}",
    model="模型：{name} {version}，{manufacturer}（摘要 {digest}），运行于 {engine}。",
    intended_use="预期用途：{text}",
    made="由 secondread {version} 于 {moment} 生成。",
    patient="患者",
    patient_id="患者编号",
    birth_date="出生日期",
    sex="性别",
    accession="检查号",
    study="检查",
    page="第 {page} 页，共 {pages} 页",
    missing_letters="本页无法显示的字符以 {letter} 代替。",
)

#: By the name that the configuration has for it.
LANGUAGES = {"en": _ENGLISH, "zh": _CHINESE}
