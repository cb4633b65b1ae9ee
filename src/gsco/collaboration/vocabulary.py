"""Names for options and modalities that training records are varied with.

`SYNONYMS` renames options that a generalist learns to see; `TERMS` are names of findings and diseases
from many fields, for label sets that exist in no training image, so that a generalist learns to read
evidence about names it has never met. Option names of held-out evaluation sets must not stand here
(a test checks that).
"""

from __future__ import annotations

SYNONYMS: dict[str, tuple[str, ...]] = {
    "benign": ("benign", "benign lesion", "benign mass", "non-cancerous lesion"),
    "malignant": ("malignant", "malignant lesion", "malignant mass", "cancer"),
    "normal": ("normal", "no abnormality", "unremarkable", "healthy"),
    "normal or benign": ("normal or benign", "normal, benign", "not malignant", "no cancer"),
    "pneumonia": ("pneumonia", "lung infection", "pneumonic infiltrate", "signs of pneumonia"),
    "no finding": ("no finding", "no findings", "clear lungs", "normal"),
    "platelet": ("platelet", "platelets", "thrombocyte"),
    "red blood cell": ("red blood cell", "erythrocyte", "red cell"),
    "white blood cell": ("white blood cell", "leukocyte", "white cell"),
    "pleural effusion": ("pleural effusion", "effusion", "fluid in the pleural space"),
    "pneumothorax": ("pneumothorax", "collapsed lung", "air in the pleural space"),
    "lung nodule": ("lung nodule", "nodule", "solitary nodule"),
    "consolidation": ("consolidation", "airspace consolidation", "opacified lung"),
    "cardiomegaly": ("cardiomegaly", "enlarged heart", "large heart"),
}

TERMS: dict[str, tuple[str, ...]] = {
    "fundus photograph": (
        "diabetic retinopathy", "glaucoma", "age-related macular degeneration", "cataract", "hypertensive retinopathy",
        "retinal detachment", "papilloedema", "myopic degeneration", "healthy retina", "macular hole",
        "branch vein occlusion", "retinitis pigmentosa",
    ),
    "retinal OCT": (
        "drusen", "choroidal neovascularisation", "diabetic macular oedema", "epiretinal membrane", "normal retina",
        "central serous retinopathy", "vitreomacular traction",
    ),
    "brain MRI": (
        "glioma", "meningioma", "pituitary tumour", "metastasis", "no tumour", "abscess", "multiple sclerosis plaque",
        "acute infarct", "hydrocephalus", "cavernoma", "schwannoma",
    ),
    "head CT": (
        "subdural haematoma", "epidural haematoma", "subarachnoid haemorrhage", "intraparenchymal haemorrhage",
        "no haemorrhage", "skull fracture", "midline shift", "chronic infarct",
    ),
    "abdominal CT": (
        "liver", "spleen", "left kidney", "right kidney", "pancreas", "bladder", "renal cyst", "hepatic metastasis",
        "appendicitis", "diverticulitis", "gallstones", "bowel obstruction", "aortic aneurysm",
    ),
    "colonoscopy": (
        "adenomatous polyp", "hyperplastic polyp", "ulcerative colitis", "diverticulum", "normal mucosa", "caecum",
        "ileum", "haemorrhoids", "Crohn's disease", "carcinoid",
    ),
    "gastroscopy": (
        "oesophagitis", "Barrett's oesophagus", "gastric ulcer", "varices", "normal pylorus", "hiatal hernia",
        "gastric polyp", "gastritis", "candidiasis",
    ),
    "bone radiograph": (
        "fracture", "dislocation", "osteoarthritis", "osteosarcoma", "normal bone", "osteomyelitis", "bone cyst",
        "scaphoid fracture", "metal implant", "rheumatoid arthritis",
    ),
    "knee MRI": (
        "meniscal tear", "anterior cruciate ligament tear", "cartilage defect", "joint effusion", "intact knee",
        "bone bruise", "patellar tendinopathy",
    ),
    "colorectal histology": (
        "adipose tissue", "lymphocytes", "mucus", "smooth muscle", "cancer-associated stroma", "debris", "background",
        "normal colon mucosa", "colorectal carcinoma epithelium", "signet ring cells",
    ),
    "breast histology": (
        "invasive ductal carcinoma", "lobular carcinoma", "ductal carcinoma in situ", "fibroadenoma", "adenosis",
        "phyllodes tumour", "tubular adenoma", "papillary carcinoma", "usual hyperplasia",
    ),
    "kidney histology": (
        "glomerulosclerosis", "crescent", "clear cell carcinoma", "oncocytoma", "tubular atrophy", "normal glomerulus",
    ),
    "clinical photograph of the skin": (
        "psoriasis", "eczema", "acne", "rosacea", "tinea", "urticaria", "vitiligo", "scabies", "impetigo", "warts",
        "lichen planus", "cellulitis", "shingles",
    ),
    "mammogram": (
        "mass", "calcification", "architectural distortion", "asymmetry", "BI-RADS 1", "BI-RADS 2", "BI-RADS 4",
        "BI-RADS 5", "dense breast", "fatty breast",
    ),
    "electron micrograph": (
        "podocyte effacement", "immune deposits", "thin basement membrane", "fibrils", "viral particles",
    ),
    "bone marrow smear": (
        "blast", "promyelocyte", "myelocyte", "plasma cell", "erythroblast", "megakaryocyte", "smudge cell",
        "hairy cell",
    ),
    "thin blood film": (
        "Plasmodium falciparum", "Plasmodium vivax", "Babesia", "uninfected cell", "sickle cell", "target cell",
        "schistocyte", "spherocyte",
    ),
    "urine sediment": ("cast", "crystal", "epithelial cell", "yeast", "mucus thread", "sperm", "bacteria"),
    "cervical smear": (
        "superficial cell", "parabasal cell", "koilocyte", "dyskeratotic cell", "metaplastic cell",
        "high-grade lesion", "low-grade lesion",
    ),
    "cardiac ultrasound": (
        "reduced ejection fraction", "pericardial effusion", "aortic stenosis", "mitral regurgitation", "vegetation",
        "normal heart", "hypertrophy", "thrombus",
    ),
    "thyroid ultrasound": (
        "TI-RADS 2", "TI-RADS 3", "TI-RADS 4", "TI-RADS 5", "thyroid cyst", "papillary thyroid cancer", "goitre",
        "Hashimoto's thyroiditis",
    ),
    "liver ultrasound": ("steatosis", "cirrhosis", "haemangioma", "hepatocellular carcinoma", "simple cyst", "healthy liver"),
    "obstetric ultrasound": ("fetal head", "fetal abdomen", "femur", "thorax", "maternal cervix", "placenta"),
    "spine radiograph": (
        "scoliosis", "spondylolisthesis", "disc space narrowing", "vertebral collapse", "osteophytes", "normal spine",
        "foraminal stenosis",
    ),
    "dental radiograph": (
        "caries", "periapical lesion", "impacted tooth", "root canal filling", "crown", "bone loss", "healthy tooth",
    ),
    "chest CT": (
        "pulmonary embolism", "ground-glass opacity", "emphysema", "bronchiectasis", "fibrosis", "mediastinal mass",
        "tree-in-bud pattern", "honeycombing",
    ),
    "laryngoscopy": ("vocal cord polyp", "leukoplakia", "papilloma", "laryngeal oedema", "normal larynx", "Reinke's oedema"),
    "otoscopy": ("otitis media", "perforated eardrum", "cerumen", "cholesteatoma", "normal eardrum", "otitis externa"),
    "wound photograph": ("pressure ulcer", "venous ulcer", "diabetic foot ulcer", "surgical wound", "burn"),
    "PET scan": ("hypermetabolic lesion", "physiological uptake", "inflammation", "no uptake", "bone metastasis"),
}

CODES: tuple[str, ...] = (
    "class", "type", "grade", "stage", "group", "category", "pattern", "cluster", "stratum", "phenotype", "zone",
    "finding", "lesion",
)
