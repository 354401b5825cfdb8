<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="de" sourcelanguage="en">
<context>
    <name>ClassScaleSeg</name>
    <message>
        <source>&amp;Apply</source>
        <translation>An&amp;wenden</translation>
    </message>
    <message>
        <source>&amp;Cancel</source>
        <translation>Abbre&amp;chen</translation>
    </message>
    <message>
        <source>&amp;Keep empty segments</source>
        <translation>Leere Segmente &amp;zulassen</translation>
    </message>
    <message>
        <source>&amp;Model:</source>
        <translation>&amp;Modell:</translation>
    </message>
    <message>
        <source>&amp;Region:</source>
        <translation>&amp;Region:</translation>
    </message>
    <message>
        <source>&amp;Save...</source>
        <translation>S&amp;peichern...</translation>
    </message>
    <message>
        <source>&amp;View report</source>
        <translation>Bericht ö&amp;ffnen</translation>
    </message>
    <message>
        <source>+</source>
        <translation>+</translation>
    </message>
    <message>
        <source>A coarse model that finds quickly where the ticked classes are. The model then sees that box alone, which saves time if few classes are ticked.</source>
        <translation>Ein grobes Modell, das schnell findet, wo die angehakten Klassen liegen. Das Modell sieht dann nur diesen Quader. Das spart Zeit, wenn wenige Klassen angehakt sind.</translation>
    </message>
    <message>
        <source>Add a further model to this run. All together make one segmentation.</source>
        <translation>Ein weiteres Modell zu diesem Lauf hinzufügen. Alle zusammen ergeben eine Segmentierung.</translation>
    </message>
    <message>
        <source>Add a model to this run</source>
        <translation>Ein Modell zu diesem Lauf hinzufügen</translation>
    </message>
    <message>
        <source>Add, test and remove servers, which segment for computers without a GPU.</source>
        <translation>Server hinzufügen, prüfen und entfernen. Sie segmentieren für Computer ohne GPU.</translation>
    </message>
    <message>
        <source>Advanced</source>
        <translation>Erweitert</translation>
    </message>
    <message>
        <source>All</source>
        <translation>Alle</translation>
    </message>
    <message>
        <source>All frames of the se&amp;quence</source>
        <translation>Alle Bilder der Se&amp;quenz</translation>
    </message>
    <message>
        <source>Also add an empty segment for each class that was not found.</source>
        <translation>Auch für jede nicht gefundene Klasse ein leeres Segment anlegen.</translation>
    </message>
    <message>
        <source>Also create a table with volume, surface, position and intensities of each structure.</source>
        <translation>Auch eine Tabelle mit Volumen, Oberfläche, Lage und Intensitäten jeder Struktur anlegen.</translation>
    </message>
    <message>
        <source>Also create a volume with the probability of the class of each voxel, from 0 to 1.</source>
        <translation>Auch einen Bilddatensatz mit der Wahrscheinlichkeit der Klasse jedes Voxels anlegen, von 0 bis 1.</translation>
    </message>
    <message>
        <source>Another volume that the model needs, on the same grid as the first.</source>
        <translation>Ein weiterer Bilddatensatz, den das Modell braucht, auf demselben Gitter wie der erste.</translation>
    </message>
    <message>
        <source>Ask the server again.</source>
        <translation>Den Server noch einmal fragen.</translation>
    </message>
    <message>
        <source>Automatic</source>
        <translation>Automatisch</translation>
    </message>
    <message>
        <source>Average the results of mirrored images, if the model is made for it. Up to eight times slower, slightly more accurate.</source>
        <translation>Die Ergebnisse gespiegelter Bilder mitteln, wenn das Modell dafür gemacht ist. Bis zu achtmal langsamer, etwas genauer.</translation>
    </message>
    <message>
        <source>Back</source>
        <translation>Zurück</translation>
    </message>
    <message>
        <source>Channel 2:</source>
        <translation>Kanal 2:</translation>
    </message>
    <message>
        <source>Channel 3:</source>
        <translation>Kanal 3:</translation>
    </message>
    <message>
        <source>Channel 4:</source>
        <translation>Kanal 4:</translation>
    </message>
    <message>
        <source>Checked</source>
        <translation>Geprüft</translation>
    </message>
    <message>
        <source>Choose the folder of the report</source>
        <translation>Ordner des Berichts wählen</translation>
    </message>
    <message>
        <source>Choose the folder of the report.</source>
        <translation>Den Ordner des Berichts wählen.</translation>
    </message>
    <message>
        <source>ClassScaleSeg</source>
        <translation>ClassScaleSeg</translation>
    </message>
    <message>
        <source>Classes</source>
        <translation>Klassen</translation>
    </message>
    <message>
        <source>Colours:</source>
        <translation>Farben:</translation>
    </message>
    <message>
        <source>Compare</source>
        <translation>Vergleichen</translation>
    </message>
    <message>
        <source>Compare cases...</source>
        <translation>Fälle vergleichen...</translation>
    </message>
    <message>
        <source>Compare models...</source>
        <translation>Modelle vergleichen...</translation>
    </message>
    <message>
        <source>Compare the results of several volumes with their references, in one table.</source>
        <translation>Die Ergebnisse mehrerer Bilddatensätze mit ihren Referenzen vergleichen, in einer Tabelle.</translation>
    </message>
    <message>
        <source>Compare with:</source>
        <translation>Vergleich mit:</translation>
    </message>
    <message>
        <source>Compute Dice and both volumes of each structure.</source>
        <translation>Dice und beide Volumina jeder Struktur berechnen.</translation>
    </message>
    <message>
        <source>Confi&amp;dence:</source>
        <translation>K&amp;onfidenz:</translation>
    </message>
    <message>
        <source>Confidence</source>
        <translation>Konfidenz</translation>
    </message>
    <message>
        <source>Cop&amp;y log</source>
        <translation>Protokoll kop&amp;ieren</translation>
    </message>
    <message>
        <source>Correct the structure that you have clicked in the table, in Slicer's Segment Editor. All others are locked: painting stops at their borders, until you unlock them there. What you have painted is taken over when you come back.</source>
        <translation>Die in der Tabelle angeklickte Struktur in Slicers Segment Editor korrigieren. Alle anderen sind gesperrt: Zeichnen endet an ihren Grenzen, bis Sie sie dort entsperren. Was Sie gezeichnet haben, wird übernommen, wenn Sie zurückkommen.</translation>
    </message>
    <message>
        <source>Correct...</source>
        <translation>Korrigieren...</translation>
    </message>
    <message>
        <source>Create new segmentation</source>
        <translation>Neue Segmentierung anlegen</translation>
    </message>
    <message>
        <source>Device:</source>
        <translation>Gerät:</translation>
    </message>
    <message>
        <source>Do&amp;wnload...</source>
        <translation>&amp;Laden...</translation>
    </message>
    <message>
        <source>Down</source>
        <translation>Ab</translation>
    </message>
    <message>
        <source>Download this model. You see its address, size and licence first.</source>
        <translation>Dieses Modell herunterladen. Vorher sehen Sie Adresse, Größe und Lizenz.</translation>
    </message>
    <message>
        <source>Folder of a page with pictures, volumes and what is unusual of every volume that you segment with this folder. Empty: no report.</source>
        <translation>Ordner einer Seite mit Bildern, Volumina und Auffälligkeiten jedes Bilddatensatzes, den Sie mit diesem Ordner segmentieren. Leer: kein Bericht.</translation>
    </message>
    <message>
        <source>Folds:</source>
        <translation>Folds:</translation>
    </message>
    <message>
        <source>Free memory</source>
        <translation>Freier Speicher</translation>
    </message>
    <message>
        <source>From the voxels of the model to those of the volume: between all classes, which gives smooth borders, or copy the nearest class, as the models of Auto3DSeg do in their own program.</source>
        <translation>Von den Voxeln des Modells zu denen des Bilddatensatzes: zwischen allen Klassen, was glatte Grenzen ergibt, oder die nächstliegende Klasse kopieren, wie es die Modelle von Auto3DSeg in ihrem eigenen Programm tun.</translation>
    </message>
    <message>
        <source>Go through the segmentations of a folder, such as results of the command or cases for training: check and correct one after the other, and save each to its file.</source>
        <translation>Die Segmentierungen eines Ordners durchgehen, etwa Ergebnisse des Befehls oder Fälle fürs Training: eine nach der anderen prüfen und korrigieren und in ihrer Datei speichern.</translation>
    </message>
    <message>
        <source>Go to the next structure that is not checked, those of which the model was least sure first, at the place in it where it was least sure. Without a confidence: in the order of the table.</source>
        <translation>Zur nächsten Struktur gehen, die nicht geprüft ist, an die Stelle, an der das Modell am unsichersten war. Die Struktur, bei der es am unsichersten war, kommt zuerst. Ohne Konfidenz: in der Reihenfolge der Tabelle.</translation>
    </message>
    <message>
        <source>Hide differences</source>
        <translation>Ausblenden</translation>
    </message>
    <message>
        <source>Hide the differences, and show again the segmentations that were hidden for them.</source>
        <translation>Die Unterschiede ausblenden und die Segmentierungen, die für sie ausgeblendet waren, wieder zeigen.</translation>
    </message>
    <message>
        <source>Inputs</source>
        <translation>Eingaben</translation>
    </message>
    <message>
        <source>Interpolation:</source>
        <translation>Interpolation:</translation>
    </message>
    <message>
        <source>Load an RT structure set, which has contours, and compare the segmentation under Result with it as the reference.</source>
        <translation>Einen RT-Strukturdatensatz laden, der Konturen hat, und die Segmentierung unter „Ergebnis“ mit ihm als Referenz vergleichen.</translation>
    </message>
    <message>
        <source>Locate with:</source>
        <translation>Finden mit:</translation>
    </message>
    <message>
        <source>Log</source>
        <translation>Protokoll</translation>
    </message>
    <message>
        <source>Make parts of a class that are smaller than this background, after smoothing.</source>
        <translation>Teile einer Klasse, die kleiner sind, nach dem Glätten zu Hintergrund machen.</translation>
    </message>
    <message>
        <source>Mark the structure that you have clicked in the table as checked, and go to the next one. If it is marked already, remove the mark. It is Slicer's status "Completed" of the segment, which scenes and files keep.</source>
        <translation>Die Struktur, die Sie in der Tabelle angeklickt haben, als geprüft markieren und zur nächsten gehen. Ist sie schon markiert, wird die Markierung entfernt. Es ist Slicers Status „Completed“ des Segments, den Szenen und Dateien behalten.</translation>
    </message>
    <message>
        <source>Measure volume, surface and position of each structure, with the intensities of the volume if it is on the same grid, for a table of the scene or for a file.</source>
        <translation>Volumen, Oberfläche und Lage jeder Struktur messen, mit den Intensitäten des Bilddatensatzes, wenn er dasselbe Gitter hat, für eine Tabelle der Szene oder für eine Datei.</translation>
    </message>
    <message>
        <source>Memory limit:</source>
        <translation>Speichergrenze:</translation>
    </message>
    <message>
        <source>Mirroring</source>
        <translation>Spiegelung</translation>
    </message>
    <message>
        <source>Models of this run</source>
        <translation>Modelle dieses Laufs</translation>
    </message>
    <message>
        <source>More about this model</source>
        <translation>Mehr zu diesem Modell</translation>
    </message>
    <message>
        <source>Move this model down: it runs later, and gets voxels that earlier ones claim too.</source>
        <translation>Dieses Modell nach unten: Es läuft später und bekommt auch Voxel, die frühere Modelle beanspruchen.</translation>
    </message>
    <message>
        <source>Move this model up: it runs earlier.</source>
        <translation>Dieses Modell nach oben: Es läuft früher.</translation>
    </message>
    <message>
        <source>Name segments by their terminology codes (Left kidney), not by the names of the model (kidney_left).</source>
        <translation>Segmente nach ihren Terminologie-Codes benennen (Left kidney), nicht nach den Namen des Modells (kidney_left).</translation>
    </message>
    <message>
        <source>Next</source>
        <translation>Nächste</translation>
    </message>
    <message>
        <source>None</source>
        <translation>Keiner</translation>
    </message>
    <message>
        <source>Number of processor threads to use.</source>
        <translation>Anzahl der Prozessor-Threads.</translation>
    </message>
    <message>
        <source>Numbers of the model's networks (folds) to average, for example 0 1 2.</source>
        <translation>Nummern der Netze des Modells (Folds), die gemittelt werden, zum Beispiel 0 1 2.</translation>
    </message>
    <message>
        <source>Off</source>
        <translation>Aus</translation>
    </message>
    <message>
        <source>On the CPU, let the network compute with less precision. About twice as fast on processors with AMX, and slightly less exact. Without effect on a graphics card.</source>
        <translation>Auf der CPU rechnet das Netz mit geringerer Genauigkeit. Auf Prozessoren mit AMX etwa doppelt so schnell und etwas weniger genau. Ohne Wirkung auf einer Grafikkarte.</translation>
    </message>
    <message>
        <source>Outputs</source>
        <translation>Ausgaben</translation>
    </message>
    <message>
        <source>Overlap:</source>
        <translation>Überlappung:</translation>
    </message>
    <message>
        <source>Progress</source>
        <translation>Fortschritt</translation>
    </message>
    <message>
        <source>Put the comparison into a table of the scene.</source>
        <translation>Den Vergleich als Tabelle in die Szene legen.</translation>
    </message>
    <message>
        <source>R&amp;eport:</source>
        <translation>&amp;Bericht:</translation>
    </message>
    <message>
        <source>Region</source>
        <translation>Region</translation>
    </message>
    <message>
        <source>Remove</source>
        <translation>Entfernen</translation>
    </message>
    <message>
        <source>Remove islands:</source>
        <translation>Inseln entfernen:</translation>
    </message>
    <message>
        <source>Result</source>
        <translation>Ergebnis</translation>
    </message>
    <message>
        <source>Review cases...</source>
        <translation>Fälle prüfen...</translation>
    </message>
    <message>
        <source>S&amp;tatistics:</source>
        <translation>S&amp;tatistik:</translation>
    </message>
    <message>
        <source>Save for training...</source>
        <translation>Für Training speichern...</translation>
    </message>
    <message>
        <source>Save the comparison as a .csv file or as an Excel workbook.</source>
        <translation>Den Vergleich als .csv-Datei oder als Excel-Arbeitsmappe speichern.</translation>
    </message>
    <message>
        <source>Save the segmentation as a .seg.nrrd file or, if the volume comes from DICOM, as a .seg.dcm file; or send it to an archive then. With hundreds of segments this is many times faster than Slicer's own writer.</source>
        <translation>Die Segmentierung als .seg.nrrd-Datei speichern oder, wenn der Bilddatensatz aus DICOM stammt, als .seg.dcm-Datei; dann lässt sie sich auch an ein Archiv senden. Bei Hunderten von Segmenten geht das um ein Vielfaches schneller als mit Slicers eigenem Schreiber.</translation>
    </message>
    <message>
        <source>Save the segmentation, once it is corrected, with its volume as a case for training a network. An empty segment says that the image has no such structure; a structure without a segment may not have been drawn.</source>
        <translation>Die korrigierte Segmentierung mit ihrem Bilddatensatz als Fall für das Training eines Netzes speichern. Ein leeres Segment besagt, dass das Bild diese Struktur nicht enthält; eine Struktur ohne Segment ist vielleicht nur nicht eingezeichnet.</translation>
    </message>
    <message>
        <source>Save...</source>
        <translation>Speichern...</translation>
    </message>
    <message>
        <source>Se&amp;gmentation:</source>
        <translation>&amp;Segmentierung:</translation>
    </message>
    <message>
        <source>Search models</source>
        <translation>Modelle suchen</translation>
    </message>
    <message>
        <source>Search models, for example: pancreas MR</source>
        <translation>Modelle suchen, z. B. pancreas MR</translation>
    </message>
    <message>
        <source>Segment only inside this box. The segmentation still has the grid of the whole volume.</source>
        <translation>Nur in diesem Quader segmentieren. Die Segmentierung behält das Gitter des ganzen Bilddatensatzes.</translation>
    </message>
    <message>
        <source>Segment the cases that were saved for training with two models, and see which one is better, structure by structure.</source>
        <translation>Die für das Training gespeicherten Fälle mit zwei Modellen segmentieren und Struktur für Struktur sehen, welches besser ist.</translation>
    </message>
    <message>
        <source>Segment the volume.</source>
        <translation>Den Bilddatensatz segmentieren.</translation>
    </message>
    <message>
        <source>Segmentation</source>
        <translation>Segmentierung</translation>
    </message>
    <message>
        <source>Segmentation:</source>
        <translation>Segmentierung:</translation>
    </message>
    <message>
        <source>Segments CT and MR images into hundreds of named structures, in memory that does not grow with the number of classes. Select a volume and a model, and press Apply. To find a structure, search in the table of results. Click a structure to centre the views on it. Tick structures to show them in 3D. nnU-Net v2 models can be used without conversion. Not for clinical use.</source>
        <translation>Segmentiert CT- und MR-Bilder in Hunderte benannter Strukturen; der Speicherbedarf wächst nicht mit der Zahl der Klassen. Wählen Sie einen Bilddatensatz und ein Modell und drücken Sie „Anwenden“. Um eine Struktur zu finden, suchen Sie in der Ergebnistabelle. Klicken Sie auf eine Struktur, um die Ansichten auf sie zu zentrieren. Haken Sie Strukturen an, um sie in 3D zu zeigen. Modelle von nnU-Net v2 lassen sich ohne Umwandlung verwenden. Nicht für den klinischen Einsatz.</translation>
    </message>
    <message>
        <source>Servers...</source>
        <translation>Server...</translation>
    </message>
    <message>
        <source>Several volumes</source>
        <translation>Mehrere Bilddatensätze</translation>
    </message>
    <message>
        <source>Show &amp;3D</source>
        <translation>&amp;3D zeigen</translation>
    </message>
    <message>
        <source>Show differences</source>
        <translation>Unterschiede zeigen</translation>
    </message>
    <message>
        <source>Show in the views what both segmentations have, and what only one of them has: of the ticked structures, or of all if none is ticked. The segmentations themselves are hidden meanwhile.</source>
        <translation>In den Ansichten zeigen, was beide Segmentierungen haben und was nur eine von ihnen hat: von den angehakten Strukturen, oder von allen, wenn keine angehakt ist. Die Segmentierungen selbst sind so lange ausgeblendet.</translation>
    </message>
    <message>
        <source>Show only models that have all these words: in their names, in what they segment, or in the kind of image. Press Enter to open the list.</source>
        <translation>Nur Modelle zeigen, die alle diese Wörter enthalten: im Namen, in den segmentierten Strukturen oder in der Art des Bildes. Die Eingabetaste öffnet die Liste.</translation>
    </message>
    <message>
        <source>Show the model card, add or remove a model, or open the folder of downloaded models.</source>
        <translation>Die Modellkarte zeigen, ein Modell hinzufügen oder entfernen oder den Ordner der heruntergeladenen Modelle öffnen.</translation>
    </message>
    <message>
        <source>Show the page of the report in the web browser.</source>
        <translation>Die Seite des Berichts im Webbrowser zeigen.</translation>
    </message>
    <message>
        <source>Show the ticked structures in 3D.</source>
        <translation>Die angehakten Strukturen in 3D zeigen.</translation>
    </message>
    <message>
        <source>Smooth the borders of all classes together, without gaps or overlaps. This is the standard deviation of the Gaussian. What is thinner than about two of it can vanish.</source>
        <translation>Die Grenzen aller Klassen gemeinsam glätten, ohne Lücken und Überlappungen. Angegeben ist die Standardabweichung der Gauß-Funktion. Was dünner ist als etwa das Doppelte, kann verschwinden.</translation>
    </message>
    <message>
        <source>Smooth:</source>
        <translation>Glätten:</translation>
    </message>
    <message>
        <source>Standard anatom&amp;ical names</source>
        <translation>Anatomische Sta&amp;ndardnamen</translation>
    </message>
    <message>
        <source>Statistics</source>
        <translation>Statistik</translation>
    </message>
    <message>
        <source>Step:</source>
        <translation>Schritt:</translation>
    </message>
    <message>
        <source>Stop the segmentation. The scene is not changed.</source>
        <translation>Die Segmentierung abbrechen. Die Szene wird nicht verändert.</translation>
    </message>
    <message>
        <source>Structure set...</source>
        <translation>Strukturdatensatz...</translation>
    </message>
    <message>
        <source>Take this model out of the run. Its files stay.</source>
        <translation>Dieses Modell aus dem Lauf nehmen. Seine Dateien bleiben erhalten.</translation>
    </message>
    <message>
        <source>The low-rank basis and its projection onto the classes follow Jaubert, Traynor, Mikhael, Hipwell and Dahdouh, "Breaking the Memory Barrier: Efficient Multi-Class 3D Segmentation for Hundreds of Classes", MIDL 2026, PMLR 315:2369-2387. Networks, plans and preprocessing are those of nnU-Net (Isensee et al., Nature Methods 18, 203-211, 2021).</source>
        <translation>Die Basis niedrigen Ranges und ihre Projektion auf die Klassen folgen Jaubert, Traynor, Mikhael, Hipwell und Dahdouh, „Breaking the Memory Barrier: Efficient Multi-Class 3D Segmentation for Hundreds of Classes“, MIDL 2026, PMLR 315:2369-2387. Netze, Pläne und Vorverarbeitung sind die von nnU-Net (Isensee et al., Nature Methods 18, 203-211, 2021).</translation>
    </message>
    <message>
        <source>The model segments the image window by window. This is the distance between neighbouring windows, as a fraction of their size. 0.5 is usual for models of nnU-Net; 1 is several times faster and less accurate.</source>
        <translation>Das Modell segmentiert das Bild Fenster für Fenster. Dies ist der Abstand benachbarter Fenster als Bruchteil ihrer Größe. Für Modelle von nnU-Net ist 0,5 üblich; 1 ist mehrfach schneller und weniger genau.</translation>
    </message>
    <message>
        <source>The model to use: an embedded one, one to download, or your own. You can also drop a model folder or zip file onto this panel.</source>
        <translation>Das Modell: ein mitgeliefertes, eines zum Herunterladen oder Ihr eigenes. Sie können auch einen Modellordner oder eine Zip-Datei auf dieses Feld ziehen.</translation>
    </message>
    <message>
        <source>The models of this run, in their order. Select one to see its facts, or to choose another in its place.</source>
        <translation>Die Modelle dieses Laufs in ihrer Reihenfolge. Wählen Sie eines aus, um Näheres zu sehen oder ein anderes an seine Stelle zu setzen.</translation>
    </message>
    <message>
        <source>The most GPU memory to use, or without a GPU the most main memory (RAM). If it is too little, a slower method that needs less is used.</source>
        <translation>Höchstens so viel GPU-Speicher wird benutzt, ohne GPU so viel Arbeitsspeicher (RAM). Reicht er nicht, wird langsamer mit weniger gerechnet.</translation>
    </message>
    <message>
        <source>The segmentation to compare with the one under Result, which is the reference.</source>
        <translation>Die Segmentierung, die mit der unter „Ergebnis“ verglichen wird; jene ist die Referenz.</translation>
    </message>
    <message>
        <source>The segmentation to fill. If it already has segments, you are asked before they are replaced.</source>
        <translation>Die Segmentierung, die gefüllt wird. Hat sie schon Segmente, werden Sie vor dem Ersetzen gefragt.</translation>
    </message>
    <message>
        <source>The segmentation whose structures are listed: a result, or one that was loaded from a file or made elsewhere.</source>
        <translation>Die Segmentierung, deren Strukturen aufgeführt sind: ein Ergebnis oder eine aus einer Datei oder von anderswo.</translation>
    </message>
    <message>
        <source>The segments in the views and the rows below have their own colours, or are coloured by the mean confidence in them: yellow is where the model was least sure. What is saved has the own colours. "Unsure voxels" shows the confidence of each voxel above the image in the slice views.</source>
        <translation>Die Segmente in den Ansichten und die Zeilen darunter haben ihre eigenen Farben oder solche nach ihrer mittleren Konfidenz: Gelb ist, wo das Modell am unsichersten war. Gespeichert werden die eigenen Farben. „Unsichere Voxel“ zeigt die Konfidenz jedes Voxels über dem Bild in den Schichtansichten.</translation>
    </message>
    <message>
        <source>The volume is part of a sequence. Segment all frames, and create a sequence of segmentations.</source>
        <translation>Der Bilddatensatz ist Teil einer Sequenz. Alle Bilder segmentieren und eine Sequenz von Segmentierungen anlegen.</translation>
    </message>
    <message>
        <source>The volume to segment.</source>
        <translation>Der Bilddatensatz, der segmentiert wird.</translation>
    </message>
    <message>
        <source>Threads:</source>
        <translation>Threads:</translation>
    </message>
    <message>
        <source>To table</source>
        <translation>In Tabelle</translation>
    </message>
    <message>
        <source>Train a model further on the cases that were saved for training, here, and use the new one.</source>
        <translation>Ein Modell mit den Fällen, die für das Training gespeichert wurden, auf diesem Rechner weiter trainieren und das neue benutzen.</translation>
    </message>
    <message>
        <source>Train...</source>
        <translation>Trainieren...</translation>
    </message>
    <message>
        <source>Try again</source>
        <translation>Noch einmal versuchen</translation>
    </message>
    <message>
        <source>Up</source>
        <translation>Auf</translation>
    </message>
    <message>
        <source>Usual</source>
        <translation>Üblich</translation>
    </message>
    <message>
        <source>V&amp;olume:</source>
        <translation>Vol&amp;umen:</translation>
    </message>
    <message>
        <source>Volumes</source>
        <translation>Volumina</translation>
    </message>
    <message>
        <source>What happens where two models claim the same voxel.</source>
        <translation>Was geschieht, wo zwei Modelle dasselbe Voxel beanspruchen.</translation>
    </message>
    <message>
        <source>Where the model runs: on this computer, or on a server with a GPU. Automatic uses a GPU of this computer if there is one.</source>
        <translation>Wo das Modell läuft: auf diesem Computer oder auf einem Server mit GPU. Automatisch nimmt eine GPU dieses Computers, wenn es eine gibt.</translation>
    </message>
    <message>
        <source>Whole volume</source>
        <translation>Ganzes Bild</translation>
    </message>
    <message>
        <source>bfloat16 on the CPU</source>
        <translation>bfloat16 auf der CPU</translation>
    </message>
</context>
<context>
    <name>ClassScaleSegPanel.library_sentences</name>
    <message>
        <source> (trained by {trainer})</source>
        <translation> (trainiert mit {trainer})</translation>
    </message>
    <message>
        <source> (without a GPU {host})</source>
        <translation> (ohne GPU {host})</translation>
    </message>
    <message>
        <source> Name the image on which it was drawn (--grid).</source>
        <translation> Nennen Sie das Bild, auf dem sie gezeichnet wurde (--grid).</translation>
    </message>
    <message>
        <source> They differ in {differences}.</source>
        <translation> Sie unterscheiden sich in: {differences}.</translation>
    </message>
    <message>
        <source> and others</source>
        <translation> und andere</translation>
    </message>
    <message>
        <source> and the password</source>
        <translation> und das Passwort</translation>
    </message>
    <message>
        <source> and the token</source>
        <translation> und das Token</translation>
    </message>
    <message>
        <source> and {names} more</source>
        <translation> und {names} weitere</translation>
    </message>
    <message>
        <source> at the spacing of the model</source>
        <translation> im Voxelabstand des Modells</translation>
    </message>
    <message>
        <source> mm (first axis first)</source>
        <translation> mm (erste Achse zuerst)</translation>
    </message>
    <message>
        <source> or folder</source>
        <translation> oder Ordner</translation>
    </message>
    <message>
        <source> with {components} channels</source>
        <translation> mit {components} Kanälen</translation>
    </message>
    <message>
        <source>"{line}" is no label. Each line of a colour table is one: {row}.</source>
        <translation>„{line}“ ist kein Label. Jede Zeile einer Farbtabelle ist eines: {row}.</translation>
    </message>
    <message>
        <source>'architecture' must be an object with 'arch_kwargs'.</source>
        <translation>'architecture' muss ein Objekt mit 'arch_kwargs' sein.</translation>
    </message>
    <message>
        <source>'background' is {background}, but must be 0 in nnU-Net's networks.</source>
        <translation>'background' ist {background}, muss aber in Netzen von nnU-Net 0 sein.</translation>
    </message>
    <message>
        <source>'labels' has no 'background'; nnU-Net's networks have a class 0 of this name. {way}</source>
        <translation>'labels' hat kein 'background'; Netze von nnU-Net haben eine Klasse 0 dieses Namens. {way}</translation>
    </message>
    <message>
        <source>'labels' is a list of names. Write each name with its value instead: {example}.</source>
        <translation>'labels' ist eine Liste von Namen. Schreiben Sie stattdessen jeden Namen mit seinem Wert: {example}.</translation>
    </message>
    <message>
        <source>'parts' must be a list of 1 to {max_parts} parts.</source>
        <translation>'parts' muss eine Liste von 1 bis {max_parts} Teilen sein.</translation>
    </message>
    <message>
        <source>'{name}' is a region of several labels. Give a table with one value for each.</source>
        <translation>„{name}“ ist eine Region aus mehreren Labels. Geben Sie eine Tabelle mit je einem Wert an.</translation>
    </message>
    <message>
        <source>, but only {cropped} of them are not zero</source>
        <translation>, aber nur {cropped} davon sind nicht null</translation>
    </message>
    <message>
        <source>, cuda:0 to cuda:{cuda}.</source>
        <translation>, cuda:0 bis cuda:{cuda}.</translation>
    </message>
    <message>
        <source>, one with</source>
        <translation>, eine mit</translation>
    </message>
    <message>
        <source>, one with {components} channels</source>
        <translation>, eine mit {components} Kanälen</translation>
    </message>
    <message>
        <source>, or narrow the search</source>
        <translation>, oder grenzen Sie die Suche ein</translation>
    </message>
    <message>
        <source>, {apart} mm apart</source>
        <translation>, {apart} mm auseinander</translation>
    </message>
    <message>
        <source>; did you mean {near}?</source>
        <translation>; meinten Sie {near}?</translation>
    </message>
    <message>
        <source>A DICOM segmentation of the kind labelmap</source>
        <translation>Eine DICOM-Segmentierung der Art Label-Map</translation>
    </message>
    <message>
        <source>A binary segmentation with {listed} classes would have {frames} frames, {size} GiB, and DICOM holds 4 GiB. Write a label map, or fewer classes.</source>
        <translation>Eine binäre Segmentierung mit {listed} Klassen hätte {frames} Frames, {size} GiB, und DICOM fasst 4 GiB. Schreiben Sie eine Label-Map oder weniger Klassen.</translation>
    </message>
    <message>
        <source>A child process can be started only once.</source>
        <translation>Ein Kindprozess kann nur einmal gestartet werden.</translation>
    </message>
    <message>
        <source>A contour of {name} has coordinates that are no numbers ({error}).</source>
        <translation>Eine Kontur von {name} hat Koordinaten, die keine Zahlen sind ({error}).</translation>
    </message>
    <message>
        <source>A contour of {name} has coordinates that are not finite, or kilometres away.</source>
        <translation>Eine Kontur von {name} hat Koordinaten, die nicht endlich oder kilometerweit entfernt sind.</translation>
    </message>
    <message>
        <source>A contour of {name} has the kind {kind} (ContourGeometricType), which is not known. Export it again.</source>
        <translation>Eine Kontur von {name} hat die Art {kind} (ContourGeometricType), die nicht bekannt ist. Exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>A contour of {name} has {count} coordinates instead of {expected}. Export it again.</source>
        <translation>Eine Kontur von {name} hat {count} Koordinaten statt {expected}. Exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>A contour of {name} has {count} points, more than {most_points}. Export it again.</source>
        <translation>Eine Kontur von {name} hat {count} Punkte, mehr als {most_points}. Exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>A file that the archive gave is left out: it belongs to another series.</source>
        <translation>Eine Datei, die das Archiv lieferte, ist weggelassen: Sie gehört zu einer anderen Serie.</translation>
    </message>
    <message>
        <source>A file that the archive gave is left out: {error}.</source>
        <translation>Eine Datei, die das Archiv lieferte, ist weggelassen: {error}.</translation>
    </message>
    <message>
        <source>A geometry needs three axes; size {size} and spacing {spacing} were given.</source>
        <translation>Eine Geometrie braucht drei Achsen; angegeben sind die Größe {size} und der Voxelabstand {spacing}.</translation>
    </message>
    <message>
        <source>A job that waits or runs needs this image. Cancel the job, or wait for its end.</source>
        <translation>Ein Auftrag, der wartet oder läuft, braucht dieses Bild. Brechen Sie den Auftrag ab, oder warten Sie, bis er endet.</translation>
    </message>
    <message>
        <source>A model called {name} is in the catalogue already. Give yours another name.</source>
        <translation>Ein Modell namens {name} ist schon im Katalog. Geben Sie Ihrem einen anderen Namen.</translation>
    </message>
    <message>
        <source>A model is given twice. Leave it out once.</source>
        <translation>Ein Modell ist zweimal angegeben. Lassen Sie es einmal weg.</translation>
    </message>
    <message>
        <source>A report is of single volumes, not of a sequence. Choose no folder for the report.</source>
        <translation>Ein Bericht handelt von einzelnen Bilddatensätzen, nicht von einer Sequenz. Wählen Sie keinen Ordner für den Bericht.</translation>
    </message>
    <message>
        <source>A segmentation is already running. Wait until it ends, or cancel it.</source>
        <translation>Eine Segmentierung läuft bereits. Warten Sie, bis sie endet, oder brechen Sie sie ab.</translation>
    </message>
    <message>
        <source>A segmentation process needs a job.</source>
        <translation>Ein Segmentierungsprozess braucht einen Auftrag.</translation>
    </message>
    <message>
        <source>A server in front of {address} takes no request of this size. Ask for a higher limit.</source>
        <translation>Ein Server vor {address} nimmt keine Anfrage dieser Größe. Bitten Sie um eine höhere Grenze.</translation>
    </message>
    <message>
        <source>A structure is listed twice.</source>
        <translation>Eine Struktur steht zweimal darin.</translation>
    </message>
    <message>
        <source>A token is needed. The person who runs the server makes one: classscaleseg serve token NAME.</source>
        <translation>Ein Token wird gebraucht. Wer den Server betreibt, erzeugt eines: classscaleseg serve token NAME.</translation>
    </message>
    <message>
        <source>A user with a password and a token were both given. Give one of them.</source>
        <translation>Benutzer mit Passwort und ein Token wurden beide angegeben. Geben Sie eines davon an.</translation>
    </message>
    <message>
        <source>A volume of the queue could not be segmented</source>
        <translation>Ein Bilddatensatz der Warteschlange konnte nicht segmentiert werden</translation>
    </message>
    <message>
        <source>Add 'background': 0.</source>
        <translation>Fügen Sie 'background': 0 hinzu.</translation>
    </message>
    <message>
        <source>After {offset} {what} the search was given up. There may be more: narrow it.</source>
        <translation>Nach {offset} Treffern wurde die Suche aufgegeben ({what}). Es kann mehr geben: Grenzen Sie die Suche ein.</translation>
    </message>
    <message>
        <source>Another image was announced with this key. Choose a new key.</source>
        <translation>Mit diesem Schlüssel wurde ein anderes Bild angekündigt. Wählen Sie einen neuen Schlüssel.</translation>
    </message>
    <message>
        <source>Another job was sent with this key. Choose a new key.</source>
        <translation>Mit diesem Schlüssel wurde ein anderer Auftrag gesendet. Wählen Sie einen neuen Schlüssel.</translation>
    </message>
    <message>
        <source>Another request sends this image at this moment. Wait for its end.</source>
        <translation>Eine andere Anfrage sendet dieses Bild gerade. Warten Sie, bis sie endet.</translation>
    </message>
    <message>
        <source>As it refers to {images} images, it is taken to have empty slices between.</source>
        <translation>Da sie auf {images} Bilder verweist, gelten die Schichten dazwischen als leer.</translation>
    </message>
    <message>
        <source>Cancelled during {stage}; nothing was written.</source>
        <translation>Abgebrochen bei {stage}; nichts wurde geschrieben.</translation>
    </message>
    <message>
        <source>Cancelled while the image was written for sending.</source>
        <translation>Abgebrochen, während das Bild zum Senden geschrieben wurde.</translation>
    </message>
    <message>
        <source>Cancelled. What has arrived is kept, and the next download continues from there.</source>
        <translation>Abgebrochen. Was angekommen ist, bleibt erhalten; der nächste Download macht dort weiter.</translation>
    </message>
    <message>
        <source>Cleaned up {change}.</source>
        <translation>Nachbearbeitet: {change}.</translation>
    </message>
    <message>
        <source>Cleaning up changed nothing.</source>
        <translation>Die Nachbearbeitung hat nichts verändert.</translation>
    </message>
    <message>
        <source>Cleaning up changed {changes} classes, which lost {lost} voxels and gained {gained}</source>
        <translation>Die Nachbearbeitung hat {changes} Klassen verändert; sie verloren {lost} Voxel und gewannen {gained}</translation>
    </message>
    <message>
        <source>Close other programs, crop the image, or set a memory limit.</source>
        <translation>Schließen Sie andere Programme, schneiden Sie das Bild zu oder setzen Sie eine Speichergrenze.</translation>
    </message>
    <message>
        <source>Close other programs.</source>
        <translation>Schließen Sie andere Programme.</translation>
    </message>
    <message>
        <source>Close other programs. The training needs more memory than segmenting with the same model.</source>
        <translation>Schließen Sie andere Programme. Das Training braucht mehr Speicher als die Segmentierung mit demselben Modell.</translation>
    </message>
    <message>
        <source>Confidence is computed for a single volume, not for a sequence. Select no confidence volume.</source>
        <translation>Die Konfidenz wird für ein einzelnes Bild berechnet, nicht für eine Sequenz. Wählen Sie keine Konfidenz aus.</translation>
    </message>
    <message>
        <source>Contours of {beside} lie between the slices of {grid}: each counts for the nearest one.</source>
        <translation>Konturen von {beside} liegen zwischen den Schichten von {grid}: Jede zählt für die nächste.</translation>
    </message>
    <message>
        <source>Contours of {beyond} are up to {farthest} mm outside of {grid}: they are of another image, or damaged.</source>
        <translation>Konturen von {beyond} liegen bis zu {farthest} mm außerhalb von {grid}: Sie gehören zu einem anderen Bild oder sind beschädigt.</translation>
    </message>
    <message>
        <source>Contours of {beyond} reach up to {farthest} mm beyond {grid}, and count there too.</source>
        <translation>Konturen von {beyond} reichen bis zu {farthest} mm über {grid} hinaus und zählen auch dort.</translation>
    </message>
    <message>
        <source>Contours of {crossing} overlap in part; what is in both of two is left out.</source>
        <translation>Konturen von {crossing} überlappen sich teilweise; was in zweien liegt, wird ausgelassen.</translation>
    </message>
    <message>
        <source>Contours of {dense} are denser than the slices of {grid}, which take the nearest ones.</source>
        <translation>Konturen von {dense} liegen dichter als die Schichten von {grid}, für die jeweils die nächsten zählen.</translation>
    </message>
    <message>
        <source>Contours of {name} do not lie in slices of {grid}: they reach through {axis} of them. Name the image on which they were drawn.</source>
        <translation>Konturen von {name} liegen nicht in Schichten von {grid}: sie reichen durch {axis} davon. Nennen Sie das Bild, auf dem sie gezeichnet wurden.</translation>
    </message>
    <message>
        <source>Contours of {nested} lie inside of others; they are taken as holes.</source>
        <translation>Konturen von {nested} liegen innerhalb von anderen; sie gelten als Löcher.</translation>
    </message>
    <message>
        <source>Contours of {sparse} are up to {apart} of {grid}: each counts for the slices nearest to it.</source>
        <translation>Konturen von {sparse} liegen bis zu {apart} von {grid}: Jede zählt für die Schichten, die ihr am nächsten sind.</translation>
    </message>
    <message>
        <source>DICOM segmentations need the Python package highdicom ({error}). Install it: python -m pip install "{highdicom}", or in the Python console of 3D Slicer: slicer.util.pip_install("{highdicom2}").</source>
        <translation>DICOM-Segmentierungen brauchen das Python-Paket highdicom ({error}). Installieren Sie es: python -m pip install "{highdicom}", oder in der Python-Konsole von 3D Slicer: slicer.util.pip_install("{highdicom2}").</translation>
    </message>
    <message>
        <source>Excel workbooks need the Python package XlsxWriter ({error}). Install it: python -m pip install "{xlsxwriter}", or in the Python console of 3D Slicer: slicer.util.pip_install("{xlsxwriter2}"). Or write .csv.</source>
        <translation>Excel-Arbeitsmappen brauchen das Python-Paket XlsxWriter ({error}). Installieren Sie es: python -m pip install "{xlsxwriter}", oder in der Python-Konsole von 3D Slicer: slicer.util.pip_install("{xlsxwriter2}"). Oder schreiben Sie .csv.</translation>
    </message>
    <message>
        <source>Extract one of its frames.</source>
        <translation>Entnehmen Sie einen der Frames.</translation>
    </message>
    <message>
        <source>Fetch them with --decompress.</source>
        <translation>Haken Sie „Das Archiv die Bilder entpacken lassen“ an, und holen Sie sie noch einmal.</translation>
    </message>
    <message>
        <source>Give the folder with the slices, or an image file.</source>
        <translation>Geben Sie den Ordner mit den Schichten an oder eine Bilddatei.</translation>
    </message>
    <message>
        <source>Give the folder with the slices, such as {parent}. If there are several: classscaleseg dicom sort makes a folder of each series.</source>
        <translation>Geben Sie den Ordner mit den Schichten an, etwa {parent}. Wenn es mehrere sind: classscaleseg dicom sort macht aus jeder Serie einen Ordner.</translation>
    </message>
    <message>
        <source>Give the image that was segmented, or its voxels as an array, or resample it to this grid.</source>
        <translation>Geben Sie das Bild an, das segmentiert wurde, oder seine Voxel als Array, oder bringen Sie es auf dieses Gitter.</translation>
    </message>
    <message>
        <source>Give the whole volume, not a slice.</source>
        <translation>Geben Sie das ganze Volumen an, nicht eine Schicht.</translation>
    </message>
    <message>
        <source>Images of the kind {kind} are not taken. Send {kinds}.</source>
        <translation>Bilder der Art {kind} werden nicht angenommen. Senden Sie {kinds}.</translation>
    </message>
    <message>
        <source>Images of this token that are announced, but not sent, reserve half of the room. Send or remove one.</source>
        <translation>Bilder dieses Tokens, die angekündigt, aber nicht gesendet sind, belegen die Hälfte des Platzes. Senden oder entfernen Sie eines.</translation>
    </message>
    <message>
        <source>Install ClassScaleSeg with its dependencies. {details}</source>
        <translation>Installieren Sie ClassScaleSeg mit seinen Abhängigkeiten. {details}</translation>
    </message>
    <message>
        <source>It is not known from which volume {value} was made. Select that volume under Inputs, or give it as volume=.</source>
        <translation>Es ist nicht bekannt, aus welchem Bilddatensatz {value} entstanden ist. Wählen Sie ihn unter „Eingaben“, oder geben Sie ihn als volume= an.</translation>
    </message>
    <message>
        <source>It is not known which model found the structures of {value}, which a DICOM file must say. In the module Data, right-click it and choose Export to DICOM.</source>
        <translation>Es ist nicht bekannt, welches Modell die Strukturen von {value} gefunden hat, und eine DICOM-Datei muss das nennen. Klicken Sie im Modul Data mit der rechten Maustaste darauf und wählen Sie „Export to DICOM“.</translation>
    </message>
    <message>
        <source>Its 'config' has more than {max_config} entries and letters: it is damaged.</source>
        <translation>'config' hat mehr als {max_config} Einträge und Buchstaben: Die Datei ist beschädigt.</translation>
    </message>
    <message>
        <source>Its 'network' is {given}; an object that describes a network was expected.</source>
        <translation>'network' ist {given}; erwartet wurde ein Objekt, das ein Netz beschreibt.</translation>
    </message>
    <message>
        <source>Its DICOM header has no size of the image (Rows, Columns). Export the series again.</source>
        <translation>Der DICOM-Header hat keine Bildgröße (Rows, Columns). Exportieren Sie die Serie noch einmal.</translation>
    </message>
    <message>
        <source>Its DICOM header is damaged ({error}). Export the series again.</source>
        <translation>Der DICOM-Header ist beschädigt ({error}). Exportieren Sie die Serie noch einmal.</translation>
    </message>
    <message>
        <source>Its contours are so many, or have so many points, that filling them would take minutes.</source>
        <translation>Die Konturen sind so viele oder haben so viele Punkte, dass es Minuten dauern würde, sie zu füllen.</translation>
    </message>
    <message>
        <source>Its contours enclose no voxel of {name}. Choose the structure set of this image.</source>
        <translation>Die Konturen der Datei umschließen kein Voxel von {name}. Wählen Sie den Strukturdatensatz dieses Bildes.</translation>
    </message>
    <message>
        <source>Its first line has no columns LabelValue and Name.</source>
        <translation>Die erste Zeile hat keine Spalten LabelValue und Name.</translation>
    </message>
    <message>
        <source>Its format is not {format}.</source>
        <translation>Das Format ist nicht {format}.</translation>
    </message>
    <message>
        <source>Its frames are shifted in their planes, by up to {value} mm, so they form no grid. Export it with whole slices.</source>
        <translation>Die Frames sind in ihren Ebenen verschoben, um bis zu {value} mm, und bilden daher kein Gitter. Exportieren Sie die Serie mit ganzen Schichten.</translation>
    </message>
    <message>
        <source>Its frames are {common} mm apart, or a multiple of it, and as thick, so they may touch. As they lie in slices that are {distance} mm apart in the image, it is taken to have empty slices between. {unknown}</source>
        <translation>Die Frames liegen {common} mm oder ein Vielfaches davon auseinander und sind ebenso dick, können sich also berühren. Weil sie in Schichten liegen, die im Bild {distance} mm auseinander sind, werden dazwischen leere Schichten angenommen. {unknown}</translation>
    </message>
    <message>
        <source>Its frames are {common} mm apart, or a multiple of it, and {thickness} mm thick.</source>
        <translation>Ihre Frames liegen {common} mm oder ein Vielfaches davon auseinander und sind {thickness} mm dick.</translation>
    </message>
    <message>
        <source>Its frames are {count} slices apart, by the distance in its header. Export it again.</source>
        <translation>Die Frames liegen {count} Schichten auseinander, nach dem Abstand im Header. Exportieren Sie die Serie noch einmal.</translation>
    </message>
    <message>
        <source>Its frames are {distance} mm apart, or a multiple of it. {none_between} {unknown}</source>
        <translation>Ihre Frames liegen {distance} mm oder ein Vielfaches davon auseinander. {none_between} {unknown}</translation>
    </message>
    <message>
        <source>Its frames are {thickness} mm thick, and as far apart or a multiple of it, so they are taken to touch, although slices are {distance} mm apart in the other segmentation. {unknown}</source>
        <translation>Die Frames sind {thickness} mm dick und ebenso weit oder ein Vielfaches davon auseinander. Darum wird angenommen, dass sie sich berühren, obwohl die Schichten der anderen Segmentierung {distance} mm auseinander liegen. {unknown}</translation>
    </message>
    <message>
        <source>Its frames have several orientations or spacings, so they form no volume.</source>
        <translation>Die Frames haben verschiedene Richtungen oder Abstände und bilden daher kein Volumen.</translation>
    </message>
    <message>
        <source>Its header declares voxels of type {code} with {bits} bits. Correct or export it again.</source>
        <translation>Der Header gibt Voxel vom Typ {code} mit {bits} Bit an. Berichtigen Sie ihn oder exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>Its header declares {dimensions} dimensions of {sizes} voxels. Correct or export it again.</source>
        <translation>Der Header gibt {dimensions} Dimensionen mit {sizes} Voxeln an. Berichtigen Sie ihn oder exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>Its header is damaged ({error}). Correct or export it again.</source>
        <translation>Der Header ist beschädigt ({error}). Berichtigen Sie ihn oder exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>Its header says that the voxels begin at byte {offset}; they cannot begin before byte {single}. Correct or export it again.</source>
        <translation>Der Header sagt, die Voxel begännen bei Byte {offset}; sie können nicht vor Byte {single} beginnen. Berichtigen Sie ihn oder exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>Its network has one output and no sigmoid, so it gives the background alone.</source>
        <translation>Das Netz hat eine einzige Ausgabe und kein Sigmoid, ergibt also nur Hintergrund.</translation>
    </message>
    <message>
        <source>Its network is {value}; of MONAI's networks only {network} is supported. No other name was looked up.</source>
        <translation>Das Netz ist {value}; von MONAIs Netzen wird nur {network} unterstützt. Kein anderer Name wurde nachgeschlagen.</translation>
    </message>
    <message>
        <source>Its network may not be given {unknown}.</source>
        <translation>{unknown} darf für das Netz nicht angegeben werden.</translation>
    </message>
    <message>
        <source>Its network takes {channels} channels, but it says how to normalise {schemes}.</source>
        <translation>Das Netz nimmt {channels} Kanäle, angegeben ist die Normierung für {schemes}.</translation>
    </message>
    <message>
        <source>Its pixels cannot be read ({error}). Export the series again.</source>
        <translation>Die Pixel können nicht gelesen werden ({error}). Exportieren Sie die Serie noch einmal.</translation>
    </message>
    <message>
        <source>Its segments fill voxels in part (FRACTIONAL); labels fill whole ones. Export it as BINARY.</source>
        <translation>Ihre Segmente füllen Voxel zum Teil (FRACTIONAL); Labels füllen ganze. Exportieren Sie sie als BINARY.</translation>
    </message>
    <message>
        <source>Its slices are {value} to {value2} mm apart: some are missing, such as between {name} and {name2}, or several volumes are mixed. They are up to {away} mm away from equal steps. Export the series again, or resample it to equal distances.</source>
        <translation>Die Schichten liegen {value} bis {value2} mm auseinander: Einige fehlen, etwa zwischen {name} und {name2}, oder mehrere Volumen sind vermischt. Sie weichen bis zu {away} mm von gleichen Abständen ab. Exportieren Sie die Serie noch einmal oder bringen Sie sie auf gleiche Abstände.</translation>
    </message>
    <message>
        <source>Its slices have {places} frames of reference (FrameOfReferenceUID), as after the patient has moved, so they may not lie where the volume has them.</source>
        <translation>Die Schichten haben {places} Bezugsrahmen (FrameOfReferenceUID), wie nach einer Bewegung des Patienten, daher liegen sie vielleicht nicht dort, wo der Bilddatensatz sie hat.</translation>
    </message>
    <message>
        <source>Jobs: {running} running, {waiting} waiting.</source>
        <translation>Aufträge: {running} laufen, {waiting} warten.</translation>
    </message>
    <message>
        <source>Label value {value} ({name}) is not between 0 and {max_value}.</source>
        <translation>Der Labelwert {value} ({name}) liegt nicht zwischen 0 und {max_value}.</translation>
    </message>
    <message>
        <source>Label value {value} is used twice, by {name} and by {name2}.</source>
        <translation>Der Labelwert {value} wird zweimal verwendet, von {name} und von {name2}.</translation>
    </message>
    <message>
        <source>Labels must be integers; these are {dtype}.</source>
        <translation>Labels müssen ganze Zahlen sein; diese sind {dtype}.</translation>
    </message>
    <message>
        <source>Labels must be whole numbers; these have {odd}.</source>
        <translation>Labels müssen ganze Zahlen sein; hier kommt {odd} vor.</translation>
    </message>
    <message>
        <source>Labels must lie between 0 and {max_value}; these range from {low} to {high}.</source>
        <translation>Labels müssen zwischen 0 und {max_value} liegen; diese reichen von {low} bis {high}.</translation>
    </message>
    <message>
        <source>Layer {index} has the label value {others}, which is that of no segment.</source>
        <translation>Ebene {index} hat den Labelwert {others}, der zu keinem Segment gehört.</translation>
    </message>
    <message>
        <source>Leave words out, or list all models without a filter.</source>
        <translation>Lassen Sie Wörter weg oder listen Sie alle Modelle ohne Filter auf.</translation>
    </message>
    <message>
        <source>Located by {name}: a box of {millimetres} mm, {share} of the image.</source>
        <translation>Lage gefunden mit {name}: ein Quader von {millimetres} mm, {share} des Bildes.</translation>
    </message>
    <message>
        <source>Memory ran out while the result was loaded. Close other programs or scenes, and run again.</source>
        <translation>Der Speicher reichte nicht, um das Ergebnis zu laden. Schließen Sie andere Programme oder Szenen und starten Sie noch einmal.</translation>
    </message>
    <message>
        <source>Memory ran out with the {current}, which is the smallest way to run this model ({cause}). Close other programs, use a machine with more memory, or use a model with a smaller patch.</source>
        <translation>Der Speicher reichte nicht für: {current}. Sparsamer lässt sich dieses Modell nicht ausführen ({cause}). Schließen Sie andere Programme, verwenden Sie einen Rechner mit mehr Speicher oder ein Modell mit kleinerem Patch.</translation>
    </message>
    <message>
        <source>Memory ran out. Close other programs or crop the image.</source>
        <translation>Der Speicher reichte nicht. Schließen Sie andere Programme oder schneiden Sie das Bild zu.</translation>
    </message>
    <message>
        <source>More than {most_layers} segments overlap at one place. Take fewer of them.</source>
        <translation>Mehr als {most_layers} Segmente überlappen sich an einer Stelle. Nehmen Sie weniger davon.</translation>
    </message>
    <message>
        <source>Name the folder that holds all of its slices.</source>
        <translation>Nennen Sie den Ordner, der alle Schichten enthält.</translation>
    </message>
    <message>
        <source>No Python interpreter was found for the child process. Name one (python=...).</source>
        <translation>Für den Kindprozess wurde kein Python-Interpreter gefunden. Geben Sie einen an (python=...).</translation>
    </message>
    <message>
        <source>No class was named that one of the models could find. Name a class of the models, or leave the classes out to keep all.</source>
        <translation>Keine der genannten Klassen kann eines der Modelle finden. Nennen Sie eine Klasse der Modelle oder lassen Sie die Klassen weg, um alle zu behalten.</translation>
    </message>
    <message>
        <source>No image was given.</source>
        <translation>Es wurde kein Bild angegeben.</translation>
    </message>
    <message>
        <source>No label has the value {value}; {extent}.</source>
        <translation>Kein Label hat den Wert {value}; {extent}.</translation>
    </message>
    <message>
        <source>No label is called {name}; {hint}</source>
        <translation>Kein Label heißt {name}; {hint}</translation>
    </message>
    <message>
        <source>No log could be written; please report it with the lines on standard error.</source>
        <translation>Kein Protokoll konnte geschrieben werden; bitte melden Sie den Fehler mit den Zeilen der Standardfehlerausgabe.</translation>
    </message>
    <message>
        <source>No model fits.</source>
        <translation>Kein Modell passt.</translation>
    </message>
    <message>
        <source>No volume is selected. Select the volume to segment.</source>
        <translation>Kein Bild ist ausgewählt. Wählen Sie das Bild, das segmentiert werden soll.</translation>
    </message>
    <message>
        <source>No voxel of {name} is in {listed}, so the case says that it has none of them.</source>
        <translation>Kein Voxel von {name} liegt in {listed}; der Fall besagt daher, dass es diese Strukturen dort nicht gibt.</translation>
    </message>
    <message>
        <source>None has the word {word}</source>
        <translation>In keinem kommt das Wort {word} vor</translation>
    </message>
    <message>
        <source>Of an image, {offset} of {size} bytes have arrived. Send the rest first.</source>
        <translation>Von einem Bild sind {offset} von {size} Bytes angekommen. Senden Sie zuerst den Rest.</translation>
    </message>
    <message>
        <source>Other structures</source>
        <translation>Andere Strukturen</translation>
    </message>
    <message>
        <source>Pixels are compressed in a way that cannot be read here ({name}). {remedy}</source>
        <translation>Die Pixel sind auf eine Weise komprimiert, die hier nicht gelesen werden kann ({name}). {remedy}</translation>
    </message>
    <message>
        <source>Pixels are compressed in a way that cannot be read here ({unreadable}), and the archive does not decompress them. Tell its administrator.</source>
        <translation>Pixel sind auf eine Art komprimiert, die hier nicht gelesen werden kann ({unreadable}), und das Archiv dekomprimiert sie nicht. Sagen Sie es der Verwaltung des Archivs.</translation>
    </message>
    <message>
        <source>Put it into the environment variable CLASSSCALESEG_TOKEN, or name a file that holds it (--server-token-file).</source>
        <translation>Geben Sie es mit der Umgebungsvariablen CLASSSCALESEG_TOKEN an, oder nennen Sie eine Datei, in der es steht (--server-token-file).</translation>
    </message>
    <message>
        <source>RGB values are 0 to 255, not {least} to {greatest}</source>
        <translation>RGB-Werte sind 0 bis 255, nicht {least} bis {greatest}</translation>
    </message>
    <message>
        <source>Rename {found}, whose value is 0, to 'background'.</source>
        <translation>Benennen Sie {found}, dessen Wert 0 ist, in 'background' um.</translation>
    </message>
    <message>
        <source>RescaleSlope is 0, which makes all voxels equal. Export it again.</source>
        <translation>RescaleSlope ist 0, also wären alle Voxel gleich. Exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>Segment id {id} is used twice, by {name} and {name2}.</source>
        <translation>Die Segment-ID {id} wird zweimal verwendet, von {name} und {name2}.</translation>
    </message>
    <message>
        <source>Segment {id} has no valid label value and colour ({error}).</source>
        <translation>Segment {id} hat keinen gültigen Labelwert und keine gültige Farbe ({error}).</translation>
    </message>
    <message>
        <source>Segment {id} has the label value {value} of another one in its layer.</source>
        <translation>Segment {id} hat den Labelwert {value} eines anderen in seiner Ebene.</translation>
    </message>
    <message>
        <source>Segment {id} has the label value {value}; 1 to {max_value} are possible.</source>
        <translation>Segment {id} hat den Labelwert {value}; möglich sind 1 bis {max_value}.</translation>
    </message>
    <message>
        <source>Segment {id} is in layer {layer}, and the file has {components} layers.</source>
        <translation>Segment {id} ist in Ebene {layer}, und die Datei hat {components} Ebenen.</translation>
    </message>
    <message>
        <source>Segments were added to {value} during the run, so the result is in {name}.</source>
        <translation>Während des Laufs kamen Segmente zu {value} hinzu, deshalb ist das Ergebnis in {name}.</translation>
    </message>
    <message>
        <source>Sending to an archive needs the Python package dicomweb-client ({error}). Install it: python -m pip install "{dicomweb_client}".</source>
        <translation>Zum Senden an ein Archiv fehlt das Python-Paket dicomweb-client ({error}). Installieren Sie es: python -m pip install "{dicomweb_client}".</translation>
    </message>
    <message>
        <source>Several labels are called {name}: give a label value instead, {values}.</source>
        <translation>Mehrere Labels heißen {name}: Geben Sie stattdessen einen Labelwert an, {values}.</translation>
    </message>
    <message>
        <source>Size {size} or spacing {spacing} is not positive along every axis.</source>
        <translation>Die Größe {size} oder der Voxelabstand {spacing} ist nicht entlang jeder Achse positiv.</translation>
    </message>
    <message>
        <source>Slicer cannot make label maps of {value}, whose segments are of the kind {getsourcerepresentationname}. In the module Segmentations, create the representation {labelmap}.</source>
        <translation>Slicer kann aus {value} keine Label-Maps machen; die Segmente sind von der Art {getsourcerepresentationname}. Legen Sie im Modul Segmentations die Darstellung {labelmap} an.</translation>
    </message>
    <message>
        <source>Slices between contours of {gaps} have none, and are taken as empty.</source>
        <translation>Schichten zwischen Konturen von {gaps} haben keine und gelten als leer.</translation>
    </message>
    <message>
        <source>Some {what} are left out: the archive does not give them a valid identifier (UID).</source>
        <translation>Einiges ist weggelassen ({what}): Das Archiv gibt keine gültigen Bezeichner (UID) dafür an.</translation>
    </message>
    <message>
        <source>Structures of another frame of reference than {grid} are left out: {left_out}.</source>
        <translation>Strukturen mit einem anderen Bezugsrahmen als {grid} werden ausgelassen: {left_out}.</translation>
    </message>
    <message>
        <source>That fits on some devices only: {there}. On the others it will take less, and longer.</source>
        <translation>Das passt nur auf manche Geräte: {there}. Auf den anderen braucht es weniger Speicher und länger.</translation>
    </message>
    <message>
        <source>That fits: {there}.</source>
        <translation>Das passt: {there}.</translation>
    </message>
    <message>
        <source>That is too much: {there}. It will take less there, and longer.</source>
        <translation>Das ist zu viel: {there}. Es wird dort weniger Speicher brauchen und länger dauern.</translation>
    </message>
    <message>
        <source>That is too much: {there}. It will take less, and longer, or fail.</source>
        <translation>Das ist zu viel: {there}. Es wird weniger Speicher brauchen und länger dauern, oder scheitern.</translation>
    </message>
    <message>
        <source>The DICOM files of {value} are not in Slicer's DICOM database any more, and a DICOM segmentation refers to them. Import them again in the module DICOM, or save .seg.nrrd.</source>
        <translation>Die DICOM-Dateien von {value} sind nicht mehr in der DICOM-Datenbank von Slicer, und eine DICOM-Segmentierung verweist auf sie. Importieren Sie sie im Modul DICOM noch einmal oder speichern Sie .seg.nrrd.</translation>
    </message>
    <message>
        <source>The Python of the run lacks the package {missing}. Install ClassScaleSeg's dependencies.</source>
        <translation>Dem Python des Laufs fehlt das Paket {missing}. Installieren Sie die Abhängigkeiten von ClassScaleSeg.</translation>
    </message>
    <message>
        <source>The Python package psutil is not installed, and segmentation needs it. Install ClassScaleSeg's dependencies; in Slicer, press Apply once, or call ClassScaleSegLogic().installDependencies().</source>
        <translation>Das Python-Paket psutil ist nicht installiert, und die Segmentierung braucht es. Installieren Sie die Abhängigkeiten von ClassScaleSeg; in Slicer drücken Sie einmal „Anwenden“ oder rufen ClassScaleSegLogic().installDependencies() auf.</translation>
    </message>
    <message>
        <source>The address has a part after ? or #. Give the root of the DICOMweb service.</source>
        <translation>Die Adresse hat einen Teil nach ? oder #. Geben Sie die Wurzel des DICOMweb-Dienstes an.</translation>
    </message>
    <message>
        <source>The address has a user or password in it (what is before @), which other programs could see. Use --user, and the environment variable CLASSSCALESEG_DICOM_PASSWORD. If the @ belongs to a path, write %40.</source>
        <translation>In der Adresse steht ein Benutzer oder Passwort (vor dem @), was andere Programme sehen könnten. Geben Sie beides in eigenen Feldern ein. Gehört das @ zu einem Pfad, schreiben Sie %40.</translation>
    </message>
    <message>
        <source>The address has more than host and port. Leave out what follows: {scheme}://{netloc}.</source>
        <translation>Die Adresse hat mehr als Rechner und Port. Lassen Sie weg, was hierauf folgt: {scheme}://{netloc}.</translation>
    </message>
    <message>
        <source>The address of the server has a user or password in it (what is before @), which other programs could see. Leave that out; the server asks for a token instead.</source>
        <translation>In der Adresse des Servers steht ein Benutzer oder Passwort (vor dem @), das andere Programme sehen könnten. Lassen Sie das weg; der Server verlangt stattdessen ein Token.</translation>
    </message>
    <message>
        <source>The address {bare} lacks its beginning. Write https://{bare2}, or http://{bare3} if the server has no certificate.</source>
        <translation>Der Adresse {bare} fehlt der Anfang. Schreiben Sie https://{bare2}, oder http://{bare3}, wenn der Server kein Zertifikat hat.</translation>
    </message>
    <message>
        <source>The archive did not say whether it has stored it. Look there.</source>
        <translation>Das Archiv hat nicht gesagt, ob es sie gespeichert hat. Sehen Sie dort nach.</translation>
    </message>
    <message>
        <source>The archive does not decompress them.</source>
        <translation>Das Archiv entpackt sie nicht.</translation>
    </message>
    <message>
        <source>The archive does not give files as they are stored, and decompresses them.</source>
        <translation>Das Archiv liefert die Dateien nicht so, wie sie gespeichert sind, sondern entpackt sie.</translation>
    </message>
    <message>
        <source>The archive does not list it among the files that it has stored.</source>
        <translation>Das Archiv nennt sie nicht unter den Dateien, die es gespeichert hat.</translation>
    </message>
    <message>
        <source>The archive does not say by what it separates the files (boundary). Tell its administrator.</source>
        <translation>Das Archiv sagt nicht, wodurch es die Dateien trennt (boundary). Sagen Sie es der Verwaltung des Archivs.</translation>
    </message>
    <message>
        <source>The archive does not say to which study {uid} belongs. Give --study too.</source>
        <translation>Das Archiv sagt nicht, zu welcher Studie {uid} gehört.</translation>
    </message>
    <message>
        <source>The archive does not separate the files by what it says (boundary).</source>
        <translation>Das Archiv trennt die Dateien anders, als es sagt (boundary).</translation>
    </message>
    <message>
        <source>The archive does not tell the modality of every series, so not all of these may fit.</source>
        <translation>Das Archiv nennt nicht von jeder Serie die Modalität; vielleicht passen nicht alle.</translation>
    </message>
    <message>
        <source>The archive does not tell {what} of every study, so not all of these may fit.</source>
        <translation>Das Archiv nennt nicht von jeder Studie {what}; vielleicht passen nicht alle.</translation>
    </message>
    <message>
        <source>The archive gave no image.</source>
        <translation>Das Archiv lieferte kein Bild.</translation>
    </message>
    <message>
        <source>The archive gives a file of more than {largest_image} GiB.</source>
        <translation>Das Archiv liefert eine Datei von mehr als {largest_image} GiB.</translation>
    </message>
    <message>
        <source>The archive gives its first {seen} {what} only. There may be more.</source>
        <translation>Das Archiv liefert nur die ersten {seen} Treffer ({what}). Es kann mehr geben.</translation>
    </message>
    <message>
        <source>The archive gives more than {most} files where {most2} would do.</source>
        <translation>Das Archiv liefert mehr als {most} Dateien, wo {most2} genügen würden.</translation>
    </message>
    <message>
        <source>The archive has no series {uid}, or does not find series without their study. Correct the UID, or give --study too.</source>
        <translation>Das Archiv hat keine Serie {uid}, oder findet Serien nicht ohne ihre Studie.</translation>
    </message>
    <message>
        <source>The archive precedes a file by headers without an end. Tell its administrator.</source>
        <translation>Das Archiv stellt einer Datei Kopfzeilen ohne Ende voran. Sagen Sie es der Verwaltung des Archivs.</translation>
    </message>
    <message>
        <source>The archive refuses it: {failurereason}.</source>
        <translation>Das Archiv lehnt sie ab: {failurereason}.</translation>
    </message>
    <message>
        <source>The archive refuses the request.</source>
        <translation>Das Archiv lehnt die Anfrage ab.</translation>
    </message>
    <message>
        <source>The archive warns: {doubt}.</source>
        <translation>Das Archiv warnt: {doubt}.</translation>
    </message>
    <message>
        <source>The background cannot be located. Name other classes (--locate-classes).</source>
        <translation>Die Lage des Hintergrunds kann nicht gesucht werden. Nennen Sie andere Klassen (--locate-classes).</translation>
    </message>
    <message>
        <source>The body of this request may have {json_bytes} bytes at most.</source>
        <translation>Der Inhalt dieser Anfrage darf höchstens {json_bytes} Bytes haben.</translation>
    </message>
    <message>
        <source>The certificate of {address} has expired. Ask the person who runs the server to renew it, and check the clock of this machine. Nothing was sent.</source>
        <translation>Das Zertifikat von {address} ist abgelaufen. Bitten Sie die Person, die den Server betreibt, es zu erneuern, und prüfen Sie die Uhr dieses Rechners. Es wurde nichts gesendet.</translation>
    </message>
    <message>
        <source>The certificate of {address} is for another name ({said}). Use the name that it is for as the address, or ask the person who runs the server. Nothing was sent.</source>
        <translation>Das Zertifikat von {address} gilt für einen anderen Namen ({said}). Nehmen Sie den Namen, für den es gilt, als Adresse, oder fragen Sie die Person, die den Server betreibt. Es wurde nichts gesendet.</translation>
    </message>
    <message>
        <source>The certificate of {address} is not trusted ({said}). If it is that of your lab, name its file (--server-ca). Nothing was sent.</source>
        <translation>Dem Zertifikat von {address} wird nicht vertraut ({said}). Wenn es das Ihres Labors ist, nennen Sie seine Datei (--server-ca). Es wurde nichts gesendet.</translation>
    </message>
    <message>
        <source>The class {name} has no colour such as #ff8000.</source>
        <translation>Die Klasse {name} hat keine Farbe wie #ff8000.</translation>
    </message>
    <message>
        <source>The classes overlap and are in {layers} layers, so they are no single label image. Take the arrays in layers instead.</source>
        <translation>Die Klassen überlappen sich und liegen in {layers} Ebenen, sind also kein einzelnes Label-Bild. Nehmen Sie stattdessen die Arrays in layers.</translation>
    </message>
    <message>
        <source>The columns index and name are needed, separated by tabs; it has {found}.</source>
        <translation>Die Spalten index und name sind nötig, durch Tabulatoren getrennt; vorhanden ist {found}.</translation>
    </message>
    <message>
        <source>The command</source>
        <translation>Der Befehl</translation>
    </message>
    <message>
        <source>The confidence is not between 0 and 1</source>
        <translation>Die Konfidenz liegt nicht zwischen 0 und 1</translation>
    </message>
    <message>
        <source>The confidence is that of one class in each voxel, so it cannot be computed where overlaps are kept. Leave out the confidence or overlap (--overlap).</source>
        <translation>Die Konfidenz gilt einer Klasse je Voxel und lässt sich nicht berechnen, wo Überlappungen behalten werden. Lassen Sie die Konfidenz oder die Überlappung weg (--overlap).</translation>
    </message>
    <message>
        <source>The connection to {address} is not encrypted, so others in the network could read {what}. Nothing was sent. {insecure_hint}</source>
        <translation>Die Verbindung zu {address} ist nicht verschlüsselt; andere im Netzwerk könnten {what} lesen. Es wurde nichts gesendet. {insecure_hint}</translation>
    </message>
    <message>
        <source>The contours of the structures take more than {most_bytes} GiB, too much for a structure set. Smooth them, choose fewer classes, or write .seg.dcm.</source>
        <translation>Die Konturen der Strukturen brauchen mehr als {most_bytes} GiB, zu viel für einen Strukturdatensatz. Glätten Sie sie, wählen Sie weniger Klassen oder schreiben Sie .seg.dcm.</translation>
    </message>
    <message>
        <source>The correction</source>
        <translation>Die Korrektur</translation>
    </message>
    <message>
        <source>The details are in {file}; please report it with that file.</source>
        <translation>Einzelheiten stehen in {file}; bitte melden Sie den Fehler mit dieser Datei.</translation>
    </message>
    <message>
        <source>The end of the archive's answer is missing.</source>
        <translation>Das Ende der Antwort des Archivs fehlt.</translation>
    </message>
    <message>
        <source>The file from {address} has the SHA-256 {digest}, but {sha256} was expected. The file has been altered or replaced, and was not kept. Download it again; if that fails, tell the publishers of the model.</source>
        <translation>Die Datei von {address} hat die SHA-256 {digest}, erwartet wurde {sha256}. Die Datei wurde verändert oder ersetzt und deshalb nicht behalten. Laden Sie sie noch einmal herunter; hilft das nicht, wenden Sie sich an die Herausgeber des Modells.</translation>
    </message>
    <message>
        <source>The folder has files that are damaged, or not of this series: {odd}.</source>
        <translation>Im Ordner sind Dateien, die beschädigt sind oder nicht zu dieser Serie gehören: {odd}.</translation>
    </message>
    <message>
        <source>The folder has images that the archive does not list: {others}.</source>
        <translation>Im Ordner sind Bilder, die das Archiv nicht nennt: {others}.</translation>
    </message>
    <message>
        <source>The frame of {value} that was corrected is not in its sequence any more.</source>
        <translation>Das Bild von {value}, das korrigiert wurde, ist nicht mehr in seiner Sequenz.</translation>
    </message>
    <message>
        <source>The geometry does not span a volume: spacing {spacing}, origin {origin}, direction {direction}.</source>
        <translation>Die Geometrie spannt kein Volumen auf: Voxelabstand {spacing}, Ursprung {origin}, Richtung {direction}.</translation>
    </message>
    <message>
        <source>The header calls it a localizer, of which a folder would be refused. It is segmented as named.</source>
        <translation>Der Header nennt sie einen Localizer; ein Ordner davon würde abgelehnt. Sie wird segmentiert, weil Sie sie selbst genannt haben.</translation>
    </message>
    <message>
        <source>The header calls it a localizer, which is no volume: name the folder of the series itself.</source>
        <translation>Der Header nennt sie einen Localizer, der kein Volumen ist: Nennen Sie den Ordner der eigentlichen Serie.</translation>
    </message>
    <message>
        <source>The headers of {name} do not allow a DICOM segmentation ({error}). Write .seg.nrrd.</source>
        <translation>Die Header von {name} lassen keine DICOM-Segmentierung zu ({error}). Schreiben Sie .seg.nrrd.</translation>
    </message>
    <message>
        <source>The headers of {name} do not allow a structure set ({error}). Write .seg.nrrd.</source>
        <translation>Die Header von {name} lassen keinen Strukturdatensatz zu ({error}). Schreiben Sie .seg.nrrd.</translation>
    </message>
    <message>
        <source>The image</source>
        <translation>Das Bild</translation>
    </message>
    <message>
        <source>The image cannot be read: {rstrip}. Export it again.</source>
        <translation>Das Bild kann nicht gelesen werden: {rstrip}. Exportieren Sie es noch einmal.</translation>
    </message>
    <message>
        <source>The image cannot be sent: it cannot be written to {parent} first ({strerror}). Free some space there, or set the environment variable TMPDIR to another folder.</source>
        <translation>Das Bild kann nicht gesendet werden: es kann nicht zuerst nach {parent} geschrieben werden ({strerror}). Schaffen Sie dort Platz, oder setzen Sie die Umgebungsvariable TMPDIR auf einen anderen Ordner.</translation>
    </message>
    <message>
        <source>The image has more than the {size} bytes that were announced, so it was removed.</source>
        <translation>Das Bild hat mehr als die {size} angekündigten Bytes und wurde deshalb entfernt.</translation>
    </message>
    <message>
        <source>The image has voxels that are NaN or infinite. Replace them first, for example with air.</source>
        <translation>Das Bild hat Voxel, die NaN oder unendlich sind. Ersetzen Sie sie zuerst, zum Beispiel durch Luft.</translation>
    </message>
    <message>
        <source>The image has {dimensions} dimensions; three are needed.</source>
        <translation>Das Bild hat {dimensions} Dimensionen; drei sind nötig.</translation>
    </message>
    <message>
        <source>The image has {millions}. Crop it first, or segment it elsewhere.</source>
        <translation>Das Bild hat {millions}. Schneiden Sie es vorher zu, oder segmentieren Sie es woanders.</translation>
    </message>
    <message>
        <source>The image has {size} GiB; this server takes up to {most} GiB. Crop it first.</source>
        <translation>Das Bild hat {size} GiB; dieser Server nimmt bis zu {most} GiB. Schneiden Sie es vorher zu.</translation>
    </message>
    <message>
        <source>The image has {size} mm; what lies more than {size2} mm from its centre is background.</source>
        <translation>Das Bild hat {size} mm; was mehr als {size2} mm von seiner Mitte entfernt ist, wird Hintergrund.</translation>
    </message>
    <message>
        <source>The image has {value} dimensions; three are needed.</source>
        <translation>Das Bild hat {value} Dimensionen; drei sind nötig.</translation>
    </message>
    <message>
        <source>The image has {value} voxels, the geometry has {size}.</source>
        <translation>Das Bild hat {value} Voxel, die Geometrie hat {size}.</translation>
    </message>
    <message>
        <source>The image that has arrived is not the one that was announced (its SHA-256 differs). Send it again.</source>
        <translation>Das angekommene Bild ist nicht das angekündigte (sein SHA-256 ist ein anderer). Senden Sie es noch einmal.</translation>
    </message>
    <message>
        <source>The images name another patient (PatientID) than the archive does, as after a correction there. They and the result were deleted here, and nothing was sent.</source>
        <translation>Die Bilder nennen einen anderen Patienten (PatientID) als das Archiv, wie nach einer Korrektur dort. Sie und das Ergebnis wurden hier gelöscht, und nichts wurde gesendet.</translation>
    </message>
    <message>
        <source>The images of reported must be a list of texts.</source>
        <translation>Die images von reported müssen eine Liste von Texten sein.</translation>
    </message>
    <message>
        <source>The job and its options must be JSON objects.</source>
        <translation>Der Auftrag und seine Optionen müssen JSON-Objekte sein.</translation>
    </message>
    <message>
        <source>The job has failed.</source>
        <translation>Der Auftrag ist fehlgeschlagen.</translation>
    </message>
    <message>
        <source>The job is not finished. Ask again when its state says so.</source>
        <translation>Der Auftrag ist nicht fertig. Fragen Sie wieder, wenn sein Zustand das sagt.</translation>
    </message>
    <message>
        <source>The job of this key was removed. Choose a new key to send it again.</source>
        <translation>Der Auftrag mit diesem Schlüssel wurde entfernt. Wählen Sie einen neuen Schlüssel, um ihn noch einmal zu senden.</translation>
    </message>
    <message>
        <source>The job was cancelled at {address}, or the server was stopped.</source>
        <translation>Der Auftrag wurde auf {address} abgebrochen, oder der Server wurde beendet.</translation>
    </message>
    <message>
        <source>The job was cancelled.</source>
        <translation>Der Auftrag wurde abgebrochen.</translation>
    </message>
    <message>
        <source>The job was not asked for {what}. Send it again, with {what2}: true.</source>
        <translation>Vom Auftrag wurde {what} nicht verlangt. Senden Sie ihn noch einmal, mit {what2}: true.</translation>
    </message>
    <message>
        <source>The job was stopped after {minutes} minutes, the longest that this server allows.</source>
        <translation>Der Auftrag wurde nach {minutes} Minuten beendet; länger erlaubt dieser Server keinen.</translation>
    </message>
    <message>
        <source>The label image</source>
        <translation>Das Labelbild</translation>
    </message>
    <message>
        <source>The label map contains {listed}, which the label table does not name.</source>
        <translation>Die Label-Map enthält {listed}; in der Label-Tabelle fehlen dafür Namen.</translation>
    </message>
    <message>
        <source>The label map contains {listed}, which the label table {file} does not name.</source>
        <translation>Die Label-Map enthält {listed}; in der Label-Tabelle {file} fehlen dafür Namen.</translation>
    </message>
    <message>
        <source>The label table</source>
        <translation>Die Label-Tabelle</translation>
    </message>
    <message>
        <source>The label table has no class besides the background; a DICOM segmentation needs one.</source>
        <translation>Die Label-Tabelle hat außer dem Hintergrund keine Klasse; eine DICOM-Segmentierung braucht eine.</translation>
    </message>
    <message>
        <source>The label table has no class besides the background; a structure set needs one.</source>
        <translation>Die Label-Tabelle hat außer dem Hintergrund keine Klasse; ein Strukturdatensatz braucht eine.</translation>
    </message>
    <message>
        <source>The label value</source>
        <translation>Der Labelwert</translation>
    </message>
    <message>
        <source>The label values {listed} occur in several layers; each class must have a layer of its own.</source>
        <translation>Die Labelwerte {listed} kommen in mehreren Ebenen vor; jede Klasse muss ihre eigene Ebene haben.</translation>
    </message>
    <message>
        <source>The list of servers is being changed</source>
        <translation>Die Liste der Server wird gerade geändert</translation>
    </message>
    <message>
        <source>The low-rank head of these weights lacks {missing}.</source>
        <translation>Der Low-Rank-Kopf dieser Gewichte hat kein {missing}.</translation>
    </message>
    <message>
        <source>The modalities are {modalities}.</source>
        <translation>Die Modalitäten sind {modalities}.</translation>
    </message>
    <message>
        <source>The model needs {channels} volume(s), one per channel, and {volumes} are given.</source>
        <translation>Das Modell braucht {channels} Bilder, eines je Kanal; angegeben sind {volumes}.</translation>
    </message>
    <message>
        <source>The model was made for {made_for}, but this volume is {given}: expect a wrong result.</source>
        <translation>Das Modell ist für {made_for} gedacht, dieses Bild ist {given}: Rechnen Sie mit einem falschen Ergebnis.</translation>
    </message>
    <message>
        <source>The model {name} ({text}) is given twice. Leave it out once.</source>
        <translation>Das Modell {name} ({text}) ist zweimal genannt. Lassen Sie es einmal weg.</translation>
    </message>
    <message>
        <source>The model {name} needs {needed} image(s), one per channel, not {images}.</source>
        <translation>Das Modell {name} braucht {needed} Bild(er), eines je Kanal, nicht {images}.</translation>
    </message>
    <message>
        <source>The model {own} ({text}) is given twice. Leave it out once.</source>
        <translation>Das Modell {own} ({text}) ist zweimal angegeben. Lassen Sie es einmal weg.</translation>
    </message>
    <message>
        <source>The network of this model ends in a transposed convolution, so its {classes} classes are kept for each voxel: memory and time grow with the number of classes.</source>
        <translation>Das Netz dieses Modells endet in einer transponierten Faltung, daher werden alle {classes} Klassen für jedes Voxel gehalten: Speicher und Zeit wachsen mit der Zahl der Klassen.</translation>
    </message>
    <message>
        <source>The network's output is not finite. Either half precision overflowed, or the image's intensities are far from those that the model was trained on. Check the intensities, or use the CPU, which computes in single precision.</source>
        <translation>Die Ausgabe des Netzes ist nicht endlich. Entweder reichte die halbe Genauigkeit nicht, oder die Intensitäten des Bildes sind weit von denen des Trainings entfernt. Prüfen Sie die Intensitäten oder verwenden Sie die CPU, die mit einfacher Genauigkeit rechnet.</translation>
    </message>
    <message>
        <source>The orientation {directions} is not two perpendicular directions. Export it again.</source>
        <translation>Die Ausrichtung {directions} besteht nicht aus zwei senkrechten Richtungen. Exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>The other images were not tried: {missing}.</source>
        <translation>Die übrigen Bilder wurden nicht versucht: {missing}.</translation>
    </message>
    <message>
        <source>The package keyring is not installed</source>
        <translation>Das Paket keyring ist nicht installiert</translation>
    </message>
    <message>
        <source>The parts of the low-rank head do not fit each other ({error}).</source>
        <translation>Die Teile des Low-Rank-Kopfs passen nicht zueinander ({error}).</translation>
    </message>
    <message>
        <source>The places of the slices are rounded: up to {away} mm away from a regular grid.</source>
        <translation>Die Orte der Schichten sind gerundet: bis zu {away} mm von einem regelmäßigen Gitter entfernt.</translation>
    </message>
    <message>
        <source>The region {value} contains no voxel of {value2}. Move or enlarge it, or select no region.</source>
        <translation>Die Region {value} enthält kein Voxel von {value2}. Verschieben oder vergrößern Sie sie, oder wählen Sie keine Region.</translation>
    </message>
    <message>
        <source>The report is not written. {fault}</source>
        <translation>Der Bericht ist nicht geschrieben. {fault}</translation>
    </message>
    <message>
        <source>The request came through a proxy, and this server knows no tokens. Start it with --require-token.</source>
        <translation>Die Anfrage kam über einen Proxy, und dieser Server kennt keine Token. Starten Sie ihn mit --require-token.</translation>
    </message>
    <message>
        <source>The rest of the request did not come for {seconds_for_bytes} s</source>
        <translation>Der Rest der Anfrage kam {seconds_for_bytes} s lang nicht</translation>
    </message>
    <message>
        <source>The result cannot be fetched: it cannot be written to {parent} first ({strerror}). Free some space there, or set the environment variable TMPDIR to another folder.</source>
        <translation>Das Ergebnis kann nicht geholt werden: es kann nicht zuerst nach {parent} geschrieben werden ({strerror}). Schaffen Sie dort Platz, oder setzen Sie die Umgebungsvariable TMPDIR auf einen anderen Ordner.</translation>
    </message>
    <message>
        <source>The result could not be shown ({name}: {error}). This is an error in the module. Please report it, with Slicer's error log (View &gt; Error Log).</source>
        <translation>Das Ergebnis konnte nicht gezeigt werden ({name}: {error}). Das ist ein Fehler im Modul. Bitte melden Sie ihn mit dem Fehlerprotokoll von Slicer (Ansicht &gt; Fehlerprotokoll).</translation>
    </message>
    <message>
        <source>The result from {address} arrived damaged {tries} times (its SHA-256 differs). Run this again.</source>
        <translation>Das Ergebnis von {address} kam {tries}-mal beschädigt an (seine SHA-256 weicht ab). Starten Sie noch einmal.</translation>
    </message>
    <message>
        <source>The result from {address} cannot be used ({error}). Update ClassScaleSeg there and here.</source>
        <translation>Das Ergebnis von {address} ist nicht zu gebrauchen ({error}). Aktualisieren Sie ClassScaleSeg dort und hier.</translation>
    </message>
    <message>
        <source>The result of a segmentation could not be shown</source>
        <translation>Das Ergebnis einer Segmentierung konnte nicht gezeigt werden</translation>
    </message>
    <message>
        <source>The rolling basis needs {shape} GiB in {gettempdir} ({strerror}). Free some space there, or set the environment variable TMPDIR to another folder.</source>
        <translation>Die rollende Basis braucht {shape} GiB in {gettempdir} ({strerror}). Schaffen Sie dort Platz oder setzen Sie die Umgebungsvariable TMPDIR auf einen anderen Ordner.</translation>
    </message>
    <message>
        <source>The run crashed ({code}).</source>
        <translation>Der Lauf ist abgestürzt ({code}).</translation>
    </message>
    <message>
        <source>The run ended {value} (exit code {code}).</source>
        <translation>Der Lauf endete, {value} (Exit-Code {code}).</translation>
    </message>
    <message>
        <source>The run was killed ({code}), most likely by the system because memory ran out. {memory}</source>
        <translation>Der Lauf wurde beendet ({code}), wahrscheinlich vom System, weil der Speicher nicht reichte. {memory}</translation>
    </message>
    <message>
        <source>The segmentation</source>
        <translation>Die Segmentierung</translation>
    </message>
    <message>
        <source>The segmentation has ended without a word.</source>
        <translation>Die Segmentierung hat ohne ein Wort geendet.</translation>
    </message>
    <message>
        <source>The segmentation process failed without a message. See the log.</source>
        <translation>Der Segmentierungsprozess schlug ohne Meldung fehl. Näheres steht im Protokoll.</translation>
    </message>
    <message>
        <source>The segmentation that was corrected is not in the scene any more.</source>
        <translation>Die Segmentierung, die korrigiert wurde, ist nicht mehr in der Szene.</translation>
    </message>
    <message>
        <source>The segmentation was cancelled. The scene was not changed.</source>
        <translation>Die Segmentierung wurde abgebrochen. Die Szene wurde nicht verändert.</translation>
    </message>
    <message>
        <source>The segmentation was cancelled. Volumes that were finished before keep their results.</source>
        <translation>Die Segmentierung wurde abgebrochen. Bilddatensätze, die vorher fertig waren, behalten ihre Ergebnisse.</translation>
    </message>
    <message>
        <source>The segmentation was there already, and names other classes than this run: it may be of another model.</source>
        <translation>Die Segmentierung war schon da und nennt andere Klassen als dieser Lauf: Sie stammt vielleicht von einem anderen Modell.</translation>
    </message>
    <message>
        <source>The server cannot read its tokens. Tell the person who runs it.</source>
        <translation>Der Server kann seine Token nicht lesen. Sagen Sie es der Person, die ihn betreibt.</translation>
    </message>
    <message>
        <source>The server cannot write the result. Tell the person who runs it, or try again later.</source>
        <translation>Der Server kann das Ergebnis nicht schreiben. Sagen Sie es der Person, die ihn betreibt, oder versuchen Sie es später.</translation>
    </message>
    <message>
        <source>The server cannot write to its folder. Tell the person who runs it.</source>
        <translation>Der Server kann nicht in seinen Ordner schreiben. Sagen Sie es der Person, die ihn betreibt.</translation>
    </message>
    <message>
        <source>The server chooses {own}. Leave that out.</source>
        <translation>{own} bestimmt der Server. Lassen Sie das weg.</translation>
    </message>
    <message>
        <source>The server has failed. Tell the person who runs it.</source>
        <translation>Der Server ist gescheitert. Sagen Sie es der Person, die ihn betreibt.</translation>
    </message>
    <message>
        <source>The server has no room for this. Tell the person who runs it, or try again later.</source>
        <translation>Der Server hat dafür keinen Platz. Sagen Sie es der Person, die ihn betreibt, oder versuchen Sie es später noch einmal.</translation>
    </message>
    <message>
        <source>The server is being stopped. Send the job again later.</source>
        <translation>Der Server wird gerade beendet. Senden Sie den Auftrag später noch einmal.</translation>
    </message>
    <message>
        <source>The slices are tilted by {angle} degrees (gantry tilt). The result has the same geometry.</source>
        <translation>Die Schichten sind um {angle} Grad gekippt (Gantry-Neigung). Das Ergebnis hat dieselbe Geometrie.</translation>
    </message>
    <message>
        <source>The slices of {name} are up to {largest} mm from the origin, and DICOM has too few digits for contours there. Write .seg.nrrd.</source>
        <translation>Die Schichten von {name} sind bis zu {largest} mm vom Ursprung entfernt, und DICOM hat dort zu wenige Stellen für Konturen. Schreiben Sie .seg.nrrd.</translation>
    </message>
    <message>
        <source>The slices of {value} are tilted (gantry tilt), which NIfTI files cannot hold. Resample it with Slicer's module Resample Scalar/Vector/DWI Volume, and segment the volume that you get.</source>
        <translation>Die Schichten von {value} sind gekippt (Gantry-Kippung); NIfTI-Dateien können das nicht aufnehmen. Rechnen Sie den Bilddatensatz mit Slicers Modul Resample Scalar/Vector/DWI Volume um, und segmentieren Sie das Ergebnis.</translation>
    </message>
    <message>
        <source>The smallest way to run this model on this image takes {first}, more than the limit of {limit} GiB. Raise the limit, crop the image, or use a model with a smaller patch.</source>
        <translation>Am sparsamsten braucht dieses Modell für dieses Bild {first}, mehr als die Grenze von {limit} GiB. Erhöhen Sie die Grenze, schneiden Sie das Bild zu oder verwenden Sie ein Modell mit kleinerem Patch.</translation>
    </message>
    <message>
        <source>The steps between slices lie {angle} degrees from their normal: this is no volume.</source>
        <translation>Die Schritte zwischen den Schichten liegen {angle} Grad neben der Normalen: Das ist kein Volumen.</translation>
    </message>
    <message>
        <source>The structure {name} has no volume.</source>
        <translation>Die Struktur {name} hat kein Volumen.</translation>
    </message>
    <message>
        <source>The structure {name} is not among its classes.</source>
        <translation>Die Struktur {name} ist nicht unter den Klassen.</translation>
    </message>
    <message>
        <source>The study {uid} is left out, as the archive does not tell its series. {error}</source>
        <translation>Die Studie {uid} ist ausgelassen, weil das Archiv ihre Serien nicht nennt. {error}</translation>
    </message>
    <message>
        <source>The temporary folder {parents} has {free} GB free, and about {need} GB are needed. Make room there, and run again.</source>
        <translation>Der temporäre Ordner {parents} hat {free} GB frei, etwa {need} GB werden gebraucht. Schaffen Sie dort Platz und starten Sie noch einmal.</translation>
    </message>
    <message>
        <source>The token is empty, or has letters that no token has, such as a space. Correct the environment variable CLASSSCALESEG_DICOM_TOKEN. It is the token alone, without the word Bearer.</source>
        <translation>Das Token ist leer oder hat Zeichen, die kein Token hat, wie ein Leerzeichen. Korrigieren Sie es. Es ist das Token allein, ohne das Wort Bearer.</translation>
    </message>
    <message>
        <source>The token is in the keyring of the system.</source>
        <translation>Das Token ist im Schlüsselbund des Systems.</translation>
    </message>
    <message>
        <source>The token is not valid, or no longer. Ask the person who runs the server.</source>
        <translation>Das Token gilt nicht, oder nicht mehr. Fragen Sie die Person, die den Server betreibt.</translation>
    </message>
    <message>
        <source>The token of the server is not one: it must be a single word of ASCII letters. Copy it again from the person who runs the server.</source>
        <translation>Das ist kein Token eines Servers: Es muss ein einziges Wort aus ASCII-Zeichen sein. Übernehmen Sie es noch einmal von der Person, die den Server betreibt.</translation>
    </message>
    <message>
        <source>The volume of {value} was removed from the scene, and a DICOM file refers to its series. Load it again and segment it, or save .seg.nrrd.</source>
        <translation>Das Bild zu {value} wurde aus der Szene entfernt, und eine DICOM-Datei verweist auf seine Serie. Laden und segmentieren Sie es noch einmal, oder speichern Sie .seg.nrrd.</translation>
    </message>
    <message>
        <source>The voxels are up to {spacing} mm long, {coarsest} times as long as the model's: small structures may be missed.</source>
        <translation>Die Voxel sind bis zu {spacing} mm lang, {coarsest}-mal so lang wie die des Modells: Kleine Strukturen können fehlen.</translation>
    </message>
    <message>
        <source>The {larger} would take {larger2}, more than may be used. Using the {first}.</source>
        <translation>{larger} bräuchte {larger2}, mehr als verwendet werden darf. Stattdessen: {first}.</translation>
    </message>
    <message>
        <source>The {name} is {value}; it must be {must}.</source>
        <translation>{name} ist {value}; es muss {must} sein.</translation>
    </message>
    <message>
        <source>The {name} of reported must be text.</source>
        <translation>{name} von reported muss Text sein.</translation>
    </message>
    <message>
        <source>The {what} has the shape {shape}, the geometry has {shape2} (z, y, x).</source>
        <translation>{what} hat die Form {shape}, die Geometrie {shape2} (z, y, x).</translation>
    </message>
    <message>
        <source>The {what} has the shape {shape}, the label map has the grid {shape2} (z, y, x).</source>
        <translation>{what} hat die Form {shape}, die Label-Map das Gitter {shape2} (z, y, x).</translation>
    </message>
    <message>
        <source>The {what} is {size}; it must be a number above 0.</source>
        <translation>{what} ist {size}; es muss eine Zahl über 0 sein.</translation>
    </message>
    <message>
        <source>There are more such studies than {limit}. Narrow the search, or give a larger --limit.</source>
        <translation>Es gibt mehr als {limit} solche Studien. Grenzen Sie die Suche ein.</translation>
    </message>
    <message>
        <source>There are {rows} structures. At most {max_value} can be shown together: choose some.</source>
        <translation>Es sind {rows} Strukturen. Höchstens {max_value} können zusammen gezeigt werden: Wählen Sie einige aus.</translation>
    </message>
    <message>
        <source>There are {values} segments, and at most {max_value} label values.</source>
        <translation>Es gibt {values} Segmente und höchstens {max_value} Labelwerte.</translation>
    </message>
    <message>
        <source>There is no device {name} here. This torch ({version}) offers {available}</source>
        <translation>Ein Gerät {name} gibt es hier nicht. Dieses torch ({version}) bietet {available}</translation>
    </message>
    <message>
        <source>There is no option {unknown}. The options are {listed}.</source>
        <translation>Eine Option {unknown} gibt es nicht. Die Optionen sind {listed}.</translation>
    </message>
    <message>
        <source>There is no segment {segment_id} any more.</source>
        <translation>Es gibt das Segment {segment_id} nicht mehr.</translation>
    </message>
    <message>
        <source>There is no server {name}. The known servers: {known}.</source>
        <translation>Es gibt keinen Server {name}. Die bekannten Server: {known}.</translation>
    </message>
    <message>
        <source>There is no structure in {value}.</source>
        <translation>{value} enthält keine Struktur.</translation>
    </message>
    <message>
        <source>There is no structure {name} in {value} any more.</source>
        <translation>{value} hat keine Struktur {name} mehr.</translation>
    </message>
    <message>
        <source>There is no such {what}. It was removed, its time is over, or the server was started again; send it again.</source>
        <translation>Das gibt es nicht ({what}). Es wurde entfernt, seine Zeit ist um, oder der Server wurde neu gestartet; senden Sie es noch einmal.</translation>
    </message>
    <message>
        <source>There is no volume to segment. Choose at least one.</source>
        <translation>Es gibt kein Bild zum Segmentieren. Wählen Sie mindestens eines.</translation>
    </message>
    <message>
        <source>There is only one slice.</source>
        <translation>Es gibt nur eine Schicht.</translation>
    </message>
    <message>
        <source>These weights have no low-rank head: they are not from ClassScaleTrainer.</source>
        <translation>Diese Gewichte haben keinen Low-Rank-Kopf: Sie sind nicht von ClassScaleTrainer.</translation>
    </message>
    <message>
        <source>This job needs about {needed} GiB of memory, but only {free} GiB are free.</source>
        <translation>Dieser Auftrag braucht etwa {needed} GiB Speicher, aber nur {free} GiB sind frei.</translation>
    </message>
    <message>
        <source>This processor has no instructions for bfloat16 (AMX or AVX512-BF16), so float32 is used.</source>
        <translation>Dieser Prozessor hat keine Befehle für bfloat16 (AMX oder AVX512-BF16), deshalb wird float32 verwendet.</translation>
    </message>
    <message>
        <source>This server has no model to locate with of that name. It has {known}.</source>
        <translation>Dieser Server hat kein Modell dieses Namens zum Finden. Er hat {known}.</translation>
    </message>
    <message>
        <source>This server has no model {name}. It has {known}.</source>
        <translation>Dieser Server hat kein Modell {name}. Er hat {known}.</translation>
    </message>
    <message>
        <source>This server is for programs on its own machine, and the request came from a page of a browser.</source>
        <translation>Dieser Server ist für Programme auf seinem eigenen Rechner, und die Anfrage kam von einer Seite eines Browsers.</translation>
    </message>
    <message>
        <source>This server is for programs on its own machine, which call it localhost, not {host}.</source>
        <translation>Dieser Server ist für Programme auf demselben Rechner, die ihn localhost nennen, nicht {host}.</translation>
    </message>
    <message>
        <source>This system has no keyring</source>
        <translation>Dieses System hat keinen Schlüsselbund</translation>
    </message>
    <message>
        <source>To remove islands, the Python package connected-components-3d is needed, which nnunetv2 usually brings. Install it with: python -m pip install connected-components-3d</source>
        <translation>Um Inseln zu entfernen, wird das Python-Paket connected-components-3d gebraucht, das nnunetv2 meist mitbringt. Installieren Sie es mit: python -m pip install connected-components-3d</translation>
    </message>
    <message>
        <source>To write contours, the Python package contourpy is needed, which matplotlib usually brings. Install it with: python -m pip install contourpy</source>
        <translation>Um Konturen zu schreiben, wird das Python-Paket contourpy gebraucht, das matplotlib meist mitbringt. Installieren Sie es mit: python -m pip install contourpy</translation>
    </message>
    <message>
        <source>TotalSegmentator is not a medical device and not intended for clinical use.</source>
        <translation>TotalSegmentator ist kein Medizinprodukt und nicht für den klinischen Einsatz bestimmt.</translation>
    </message>
    <message>
        <source>Two of its classes have the same name or value.</source>
        <translation>Zwei der Klassen haben denselben Namen oder Wert.</translation>
    </message>
    <message>
        <source>UNet_base_num_features {base} and unet_max_num_features {most} must be whole numbers from 1 to {max_features}.</source>
        <translation>UNet_base_num_features {base} und unet_max_num_features {most} müssen ganze Zahlen von 1 bis {max_features} sein.</translation>
    </message>
    <message>
        <source>Use an address of https, or allow it in a network that you trust: --insecure, or insecure=True in Python.</source>
        <translation>Verwenden Sie eine Adresse mit https, oder erlauben Sie es in einem Netzwerk, dem Sie vertrauen: --insecure, oder insecure=True in Python.</translation>
    </message>
    <message>
        <source>What of {value} is outside of {name} was left out.</source>
        <translation>Was von {value} außerhalb von {name} liegt, wurde weggelassen.</translation>
    </message>
    <message>
        <source>Without --{option} there are {count}.</source>
        <translation>Ohne --{option} sind es {count}.</translation>
    </message>
    <message>
        <source>Without --{option} there is one.</source>
        <translation>Ohne --{option} ist es eines.</translation>
    </message>
    <message>
        <source>Write .seg.nrrd instead, or segment the DICOM series itself.</source>
        <translation>Schreiben Sie stattdessen .seg.nrrd, oder segmentieren Sie die DICOM-Serie selbst.</translation>
    </message>
    <message>
        <source>a DICOM segmentation</source>
        <translation>eine DICOM-Segmentierung</translation>
    </message>
    <message>
        <source>a group of its 'weightsManifest' does not list 'paths' and 'weights'.</source>
        <translation>eine Gruppe von 'weightsManifest' nennt kein 'paths' und 'weights'.</translation>
    </message>
    <message>
        <source>a layer has no 'config': {layer}.</source>
        <translation>eine Schicht hat kein 'config': {layer}.</translation>
    </message>
    <message>
        <source>a multiple of three</source>
        <translation>eines Vielfachen von drei</translation>
    </message>
    <message>
        <source>a number above 0 and at most {most}</source>
        <translation>eine Zahl über 0 und höchstens {most}</translation>
    </message>
    <message>
        <source>a number from 0 and at most {most}</source>
        <translation>eine Zahl ab 0 und höchstens {most}</translation>
    </message>
    <message>
        <source>a patch of {patch} would have {tokens} tokens; at most {max_tokens} are supported.</source>
        <translation>ein Patch von {patch} hätte {tokens} Tokens; höchstens {max_tokens} sind möglich.</translation>
    </message>
    <message>
        <source>a structure set</source>
        <translation>ein Strukturdatensatz</translation>
    </message>
    <message>
        <source>a tensor without a shape</source>
        <translation>ein Tensor ohne Form</translation>
    </message>
    <message>
        <source>a value contains itself</source>
        <translation>ein Wert enthält sich selbst</translation>
    </message>
    <message>
        <source>a whole number above 0 and at most {most}</source>
        <translation>eine ganze Zahl über 0 und höchstens {most}</translation>
    </message>
    <message>
        <source>a whole number from 0 and at most {most}</source>
        <translation>eine ganze Zahl ab 0 und höchstens {most}</translation>
    </message>
    <message>
        <source>a {name} as a key</source>
        <translation>ein {name} als Schlüssel</translation>
    </message>
    <message>
        <source>about {device_bytes} GB of GPU memory and {host_bytes} GB of RAM</source>
        <translation>etwa {device_bytes} GB GPU-Speicher und {host_bytes} GB RAM</translation>
    </message>
    <message>
        <source>activation {activation} of {name} is not one of {activations}.</source>
        <translation>activation {activation} von {name} ist keine von {activations}.</translation>
    </message>
    <message>
        <source>an address</source>
        <translation>eine Adresse</translation>
    </message>
    <message>
        <source>an entry is not a server</source>
        <translation>ein Eintrag ist kein Server</translation>
    </message>
    <message>
        <source>an entry is not a token</source>
        <translation>ein Eintrag ist kein Token</translation>
    </message>
    <message>
        <source>an image that was sent</source>
        <translation>ein gesendetes Bild</translation>
    </message>
    <message>
        <source>an unknown transfer syntax</source>
        <translation>eine unbekannte Transfersyntax</translation>
    </message>
    <message>
        <source>another address</source>
        <translation>eine andere Adresse</translation>
    </message>
    <message>
        <source>another program has changed it</source>
        <translation>ein anderes Programm hat es geändert</translation>
    </message>
    <message>
        <source>appears twice</source>
        <translation>kommt zweimal vor</translation>
    </message>
    <message>
        <source>architecture {value} is not supported. Use {listed} of {package}, SegResNetDS of {monai}, or the MeshNet of Brainchop. Another network would have to end in a convolution with a kernel of 1, or in a transposed one whose kernel is its stride, and be added to ClassScaleSegLib/models/networks.py.</source>
        <translation>Die Architektur {value} wird nicht unterstützt. Verwenden Sie {listed} aus {package}, SegResNetDS aus {monai} oder das MeshNet von Brainchop. Ein anderes Netz müsste mit einer Faltung mit Kern 1 enden oder mit einer transponierten, deren Kern ihre Schrittweite ist, und in ClassScaleSegLib/models/networks.py eingetragen werden.</translation>
    </message>
    <message>
        <source>as stored</source>
        <translation>wie gespeichert</translation>
    </message>
    <message>
        <source>asks who you are</source>
        <translation>fragt, wer Sie sind</translation>
    </message>
    <message>
        <source>because it was interrupted from outside</source>
        <translation>weil sie von außen unterbrochen wurde</translation>
    </message>
    <message>
        <source>because its command line was not understood</source>
        <translation>weil die Befehlszeile nicht verstanden wurde</translation>
    </message>
    <message>
        <source>because memory ran out</source>
        <translation>weil der Speicher nicht reichte</translation>
    </message>
    <message>
        <source>because of a label table or a class name</source>
        <translation>wegen einer Label-Tabelle oder eines Klassennamens</translation>
    </message>
    <message>
        <source>because of an error</source>
        <translation>wegen eines Fehlers</translation>
    </message>
    <message>
        <source>because the image cannot be used</source>
        <translation>weil das Bild nicht verwendet werden kann</translation>
    </message>
    <message>
        <source>because the model cannot be used</source>
        <translation>weil das Modell nicht verwendet werden kann</translation>
    </message>
    <message>
        <source>because the result cannot be written</source>
        <translation>weil das Ergebnis nicht geschrieben werden kann</translation>
    </message>
    <message>
        <source>bits is one of {bits}, not {bits2}</source>
        <translation>bits ist eines von {bits}, nicht {bits2}</translation>
    </message>
    <message>
        <source>blocks_down {levels} must have 2 to {max_levels} levels.</source>
        <translation>blocks_down {levels} muss 2 bis {max_levels} Ebenen haben.</translation>
    </message>
    <message>
        <source>blocks_up {blocks_up} must have {levels} numbers.</source>
        <translation>blocks_up {blocks_up} muss {levels} Zahlen haben.</translation>
    </message>
    <message>
        <source>cannot be read any more ({strerror})</source>
        <translation>ist nicht mehr zu lesen ({strerror})</translation>
    </message>
    <message>
        <source>choose one by its configuration or its path</source>
        <translation>wählen Sie eines nach Konfiguration oder Pfad</translation>
    </message>
    <message>
        <source>class {value} has no name, or a colour that is not three numbers of 0 to 255.</source>
        <translation>Klasse {value} hat keinen Namen oder eine Farbe, die nicht aus drei Zahlen von 0 bis 255 besteht.</translation>
    </message>
    <message>
        <source>clean_classes (--clean-classes) needs smooth (--smooth) or remove_islands (--remove-islands).</source>
        <translation>clean_classes (--clean-classes) braucht smooth (--smooth) oder remove_islands (--remove-islands).</translation>
    </message>
    <message>
        <source>colours of {kind}</source>
        <translation>Farben von {kind}</translation>
    </message>
    <message>
        <source>confidence map</source>
        <translation>Konfidenzkarte</translation>
    </message>
    <message>
        <source>configuration {name} cannot be read, not even as plans written before nnU-Net 2.5 ({name2}: {error}).</source>
        <translation>Die Konfiguration {name} kann nicht gelesen werden, auch nicht als Pläne aus der Zeit vor nnU-Net 2.5 ({name2}: {error}).</translation>
    </message>
    <message>
        <source>configuration {name} inherits from itself.</source>
        <translation>Die Konfiguration {name} erbt von sich selbst.</translation>
    </message>
    <message>
        <source>configuration {name} is a cascade: it needs the segmentation of {previous_stage} as input, which is not supported. Use a single-stage configuration.</source>
        <translation>Die Konfiguration {name} ist eine Kaskade: Sie braucht die Segmentierung von {previous_stage} als Eingabe, und das wird nicht unterstützt. Verwenden Sie eine einstufige Konfiguration.</translation>
    </message>
    <message>
        <source>dataset.json names {classes} classes, but {heads} are predicted.</source>
        <translation>dataset.json nennt {classes} Klassen, aber {heads} werden vorhergesagt.</translation>
    </message>
    <message>
        <source>did you mean {word}?</source>
        <translation>meinten Sie {word}?</translation>
    </message>
    <message>
        <source>dilations of {name}</source>
        <translation>dilations von {name}</translation>
    </message>
    <message>
        <source>dilations {dilations} of {name} must be a list of 1 to {max_layers} numbers.</source>
        <translation>dilations {dilations} von {name} muss eine Liste von 1 bis {max_layers} Zahlen sein.</translation>
    </message>
    <message>
        <source>dilations {dilations} of {name} must be one number for each layer.</source>
        <translation>dilations {dilations} von {name} muss eine Zahl für jede Schicht haben.</translation>
    </message>
    <message>
        <source>does not accept this user or token</source>
        <translation>akzeptiert diesen Benutzer oder dieses Token nicht</translation>
    </message>
    <message>
        <source>does not grow</source>
        <translation>wächst nicht</translation>
    </message>
    <message>
        <source>each of its 'files' must have its own 'size' and 'sha256'.</source>
        <translation>jede der 'files' muss ihre eigene 'size' und 'sha256' haben.</translation>
    </message>
    <message>
        <source>embed_dim {width} must be divisible by eva_numheads {heads}, and with use_rot_pos_emb by 6 times as much.</source>
        <translation>embed_dim {width} muss durch eva_numheads {heads} teilbar sein, mit use_rot_pos_emb durch das Sechsfache.</translation>
    </message>
    <message>
        <source>features of {name} is {features}; a whole number up to {max_features} was expected.</source>
        <translation>features von {name} ist {features}; erwartet wird eine ganze Zahl bis {max_features}.</translation>
    </message>
    <message>
        <source>fold_{fold} has {names}</source>
        <translation>fold_{fold} hat {names}</translation>
    </message>
    <message>
        <source>frame {frame} of {name}</source>
        <translation>Frame {frame} von {name}</translation>
    </message>
    <message>
        <source>further layer of labels</source>
        <translation>weitere Ebene mit Labels</translation>
    </message>
    <message>
        <source>has a 'patch' of more than {max_patch_voxels} voxels: {patch}.</source>
        <translation>hat einen „patch“ von mehr als {max_patch_voxels} Voxeln: {patch}.</translation>
    </message>
    <message>
        <source>has a 'preprocessing' that is not valid ({error})</source>
        <translation>hat ein ungültiges „preprocessing“ ({error})</translation>
    </message>
    <message>
        <source>has a compression that is not supported (only stored and deflated are)</source>
        <translation>hat eine nicht unterstützte Kompression (nur „stored“ und „deflated“ werden unterstützt)</translation>
    </message>
    <message>
        <source>has a different size than it declares</source>
        <translation>hat eine andere Größe als angegeben</translation>
    </message>
    <message>
        <source>has a label that is no JSON object: {row}.</source>
        <translation>hat ein Label, das kein JSON-Objekt ist: {row}.</translation>
    </message>
    <message>
        <source>has a label that is not valid: {row}.</source>
        <translation>hat ein ungültiges Label: {row}.</translation>
    </message>
    <message>
        <source>has an absolute path, a drive or a backslash</source>
        <translation>hat einen absoluten Pfad, ein Laufwerk oder einen Backslash</translation>
    </message>
    <message>
        <source>has an intercept without a valid slope, which ITK adds and nibabel does not</source>
        <translation>hat einen Achsenabschnitt ohne gültige Steigung, den ITK addiert und nibabel nicht</translation>
    </message>
    <message>
        <source>has become shorter while it was sent</source>
        <translation>ist beim Senden kürzer geworden</translation>
    </message>
    <message>
        <source>has no DICOM files</source>
        <translation>hat keine DICOM-Dateien</translation>
    </message>
    <message>
        <source>has no valid 'labels': {rows}.</source>
        <translation>hat keine gültigen „labels“: {rows}.</translation>
    </message>
    <message>
        <source>has no valid {name}: {value}.</source>
        <translation>hat kein gültiges {name}: {value}.</translation>
    </message>
    <message>
        <source>identifier (SOPInstanceUID)</source>
        <translation>Kennung (SOPInstanceUID)</translation>
    </message>
    <message>
        <source>images of {uid}</source>
        <translation>Bilder von {uid}</translation>
    </message>
    <message>
        <source>in 'labels', names and values are exchanged. Write {example}.</source>
        <translation>in 'labels' sind Namen und Werte vertauscht. Schreiben Sie {example}.</translation>
    </message>
    <message>
        <source>in a temporary file</source>
        <translation>in einer temporären Datei</translation>
    </message>
    <message>
        <source>in main memory</source>
        <translation>im Arbeitsspeicher</translation>
    </message>
    <message>
        <source>in the folder {place}</source>
        <translation>im Ordner {place}</translation>
    </message>
    <message>
        <source>init_values {init_values} must be a number, or null.</source>
        <translation>init_values {init_values} muss eine Zahl oder null sein.</translation>
    </message>
    <message>
        <source>input_shape {input_shape} is not the patch_size {patch}.</source>
        <translation>input_shape {input_shape} ist nicht die patch_size {patch}.</translation>
    </message>
    <message>
        <source>insecure must be true or false.</source>
        <translation>insecure muss true oder false sein.</translation>
    </message>
    <message>
        <source>is a link or a device</source>
        <translation>ist ein Link oder ein Gerät</translation>
    </message>
    <message>
        <source>is encrypted</source>
        <translation>ist verschlüsselt</translation>
    </message>
    <message>
        <source>is not a DICOM file (one with DICM after 128 bytes)</source>
        <translation>ist keine DICOM-Datei (mit DICM nach 128 Bytes)</translation>
    </message>
    <message>
        <source>is not a JSON object: {facts}.</source>
        <translation>ist kein JSON-Objekt: {facts}.</translation>
    </message>
    <message>
        <source>is one</source>
        <translation>ist eines</translation>
    </message>
    <message>
        <source>it accepts no request of this size. Ask its administrator for a higher limit</source>
        <translation>Anfragen dieser Größe nimmt es nicht an. Bitten Sie seine Verwaltung um eine höhere Grenze</translation>
    </message>
    <message>
        <source>it becomes more than {largest} GiB</source>
        <translation>entpackt hat sie mehr als {largest} GiB</translation>
    </message>
    <message>
        <source>it cannot do this</source>
        <translation>das kann es nicht</translation>
    </message>
    <message>
        <source>it cannot understand it</source>
        <translation>es versteht sie nicht</translation>
    </message>
    <message>
        <source>it changed values</source>
        <translation>es hat Werte geändert</translation>
    </message>
    <message>
        <source>it contains the same values too often</source>
        <translation>sie enthält dieselben Werte zu oft</translation>
    </message>
    <message>
        <source>it could not store the files, without saying why</source>
        <translation>es konnte die Dateien nicht speichern und sagt nicht, warum</translation>
    </message>
    <message>
        <source>it declares types of its own</source>
        <translation>sie erklären eigene Typen</translation>
    </message>
    <message>
        <source>it did not understand the request</source>
        <translation>es hat die Anfrage nicht verstanden</translation>
    </message>
    <message>
        <source>it did not understand the request. If the address is not the root of its DICOMweb service, such as http://localhost:8042/dicom-web, give that</source>
        <translation>es hat die Anfrage nicht verstanden. Ist die Adresse nicht die Wurzel seines DICOMweb-Dienstes, wie http://localhost:8042/dicom-web, so geben Sie diese an</translation>
    </message>
    <message>
        <source>it does not accept the request. Try an address without a proxy in between</source>
        <translation>es nimmt die Anfrage nicht an. Versuchen Sie eine Adresse ohne Proxy dazwischen</translation>
    </message>
    <message>
        <source>it does not begin as NRRD does</source>
        <translation>es beginnt nicht wie NRRD</translation>
    </message>
    <message>
        <source>it does not begin like one</source>
        <translation>sie beginnt nicht wie eine</translation>
    </message>
    <message>
        <source>it does not give this in the form that was asked for</source>
        <translation>in der verlangten Form liefert es das nicht</translation>
    </message>
    <message>
        <source>it does not have this, or there is no DICOMweb service at this address. Give its root, such as http://localhost:8042/dicom-web</source>
        <translation>das hat es nicht, oder unter dieser Adresse ist kein DICOMweb-Dienst. Geben Sie dessen Wurzel an, wie http://localhost:8042/dicom-web</translation>
    </message>
    <message>
        <source>it does not speak HTTP</source>
        <translation>dort wird kein HTTP gesprochen</translation>
    </message>
    <message>
        <source>it does not store this kind of object (SOP class)</source>
        <translation>Objekte dieser Art speichert es nicht (SOP-Klasse)</translation>
    </message>
    <message>
        <source>it does not take DICOM files by DICOMweb (STOW-RS). Ask its administrator</source>
        <translation>über DICOMweb nimmt es keine DICOM-Dateien an (STOW-RS). Fragen Sie seine Verwaltung</translation>
    </message>
    <message>
        <source>it does not take the transfer syntax of the file</source>
        <translation>die Transfersyntax der Datei nimmt es nicht an</translation>
    </message>
    <message>
        <source>it dropped elements</source>
        <translation>es hat Elemente weggelassen</translation>
    </message>
    <message>
        <source>it ended after {done} of {total} bytes</source>
        <translation>es endete nach {done} von {total} Bytes</translation>
    </message>
    <message>
        <source>it failed to process it</source>
        <translation>es konnte sie nicht verarbeiten</translation>
    </message>
    <message>
        <source>it finds more than it gives at once. Narrow the search</source>
        <translation>es findet mehr, als es auf einmal liefert. Grenzen Sie die Suche ein</translation>
    </message>
    <message>
        <source>it gives no reason</source>
        <translation>es gibt keinen Grund an</translation>
    </message>
    <message>
        <source>it has a fault. Try again later, or tell its administrator</source>
        <translation>es hat einen Fehler. Versuchen Sie es später noch einmal, oder sagen Sie es seiner Verwaltung</translation>
    </message>
    <message>
        <source>it has a sequence of something else than items</source>
        <translation>eine Sequenz in ihr besteht aus etwas anderem als Items</translation>
    </message>
    <message>
        <source>it has an object with this identifier already</source>
        <translation>ein Objekt mit diesem Bezeichner hat es schon</translation>
    </message>
    <message>
        <source>it has no header of NIfTI</source>
        <translation>es hat keinen NIfTI-Header</translation>
    </message>
    <message>
        <source>it has no valid identifier (SOPInstanceUID)</source>
        <translation>sie hat keinen gültigen Bezeichner (SOPInstanceUID)</translation>
    </message>
    <message>
        <source>it has too many elements</source>
        <translation>sie hat zu viele Elemente</translation>
    </message>
    <message>
        <source>it has too many lists</source>
        <translation>sie hat zu viele Listen</translation>
    </message>
    <message>
        <source>it is a localizer</source>
        <translation>sie ist ein Localizer</translation>
    </message>
    <message>
        <source>it is damaged, or not DICOM ({error})</source>
        <translation>sie ist beschädigt oder nicht DICOM ({error})</translation>
    </message>
    <message>
        <source>it is no JSON object.</source>
        <translation>es ist kein JSON-Objekt.</translation>
    </message>
    <message>
        <source>it is no image</source>
        <translation>sie ist kein Bild</translation>
    </message>
    <message>
        <source>it is not quite what its kind of object must be</source>
        <translation>sie ist nicht ganz so, wie ein Objekt dieser Art sein muss</translation>
    </message>
    <message>
        <source>it is not what its kind of object must be</source>
        <translation>sie ist nicht so, wie ein Objekt dieser Art sein muss</translation>
    </message>
    <message>
        <source>it is of something else</source>
        <translation>sie gehört zu etwas anderem</translation>
    </message>
    <message>
        <source>it is out of resources, such as disk space</source>
        <translation>ihm fehlen Mittel, wie Platz auf der Festplatte</translation>
    </message>
    <message>
        <source>it knows no such object</source>
        <translation>ein solches Objekt kennt es nicht</translation>
    </message>
    <message>
        <source>it must have either an 'address' or a 'file' or 'files'.</source>
        <translation>es muss entweder 'address' oder 'file' oder 'files' haben.</translation>
    </message>
    <message>
        <source>it refused the request</source>
        <translation>es hat die Anfrage abgelehnt</translation>
    </message>
    <message>
        <source>it says that it is something else</source>
        <translation>er gibt sich als etwas anderes aus</translation>
    </message>
    <message>
        <source>its 'weightsManifest' does not list {missing}.</source>
        <translation>'weightsManifest' nennt {missing} nicht.</translation>
    </message>
    <message>
        <source>its 'weightsManifest' lists {name}, which no layer has, or lists it twice.</source>
        <translation>'weightsManifest' nennt {name}, das keine Schicht hat, oder nennt es zweimal.</translation>
    </message>
    <message>
        <source>its disk is full. Tell its administrator</source>
        <translation>seine Festplatte ist voll. Sagen Sie es seiner Verwaltung</translation>
    </message>
    <message>
        <source>its elements are nested more than {deepest} deep</source>
        <translation>ihre Elemente sind mehr als {deepest}-mal verschachtelt</translation>
    </message>
    <message>
        <source>its end is missing</source>
        <translation>ihr Ende fehlt</translation>
    </message>
    <message>
        <source>its header does not say once how many voxels it has, along two to five axes</source>
        <translation>sein Header sagt nicht genau einmal, wie viele Voxel es hat, entlang von zwei bis fünf Achsen</translation>
    </message>
    <message>
        <source>its header has no end</source>
        <translation>sein Header hat kein Ende</translation>
    </message>
    <message>
        <source>its header is none of MetaImage with the voxels in the same file (ElementDataFile = LOCAL)</source>
        <translation>sein Header ist keiner von MetaImage mit den Voxeln in derselben Datei (ElementDataFile = LOCAL)</translation>
    </message>
    <message>
        <source>its header names another file with the voxels; send one file with both</source>
        <translation>sein Header nennt eine andere Datei mit den Voxeln; senden Sie eine Datei mit beidem</translation>
    </message>
    <message>
        <source>its id is not valid: {name}.</source>
        <translation>seine Kennung ist ungültig: {name}.</translation>
    </message>
    <message>
        <source>its identifier is not valid</source>
        <translation>ihr Bezeichner ist ungültig</translation>
    </message>
    <message>
        <source>its images have no position</source>
        <translation>ihre Bilder haben keine Position</translation>
    </message>
    <message>
        <source>its input has the shape {shape}; models of Brainchop take {value}, one channel of the whole head.</source>
        <translation>die Eingabe hat die Form {shape}; Modelle von Brainchop nehmen {value}, einen Kanal des ganzen Kopfes.</translation>
    </message>
    <message>
        <source>its input must be the first layer, and its output the last one, and no other.</source>
        <translation>die Eingabe muss die erste Schicht sein und die Ausgabe die letzte, und keine andere.</translation>
    </message>
    <message>
        <source>its keys contain too many values</source>
        <translation>ihre Schlüssel enthalten zu viele Werte</translation>
    </message>
    <message>
        <source>its last layer must be a convolution with a kernel of 1 and no activation, after others.</source>
        <translation>die letzte Schicht muss eine Faltung mit Kern 1 und ohne Aktivierung sein, nach anderen.</translation>
    </message>
    <message>
        <source>its network, SegResNetDS, needs the package monai ({error}): run `pip install monai`.</source>
        <translation>das Netz, SegResNetDS, braucht das Paket monai ({error}): Führen Sie `pip install monai` aus.</translation>
    </message>
    <message>
        <source>its network, {name}, is not part of the installed dynamic-network-architectures: run `pip install --upgrade dynamic-network-architectures`.</source>
        <translation>das Netz, {name}, gehört nicht zu den installierten dynamic-network-architectures: Führen Sie `pip install --upgrade dynamic-network-architectures` aus.</translation>
    </message>
    <message>
        <source>its network, {name}, needs packages that are missing ({error}): run `pip install --upgrade dynamic-network-architectures timm einops`.</source>
        <translation>das Netz, {name}, braucht Pakete, die fehlen ({error}): Führen Sie `pip install --upgrade dynamic-network-architectures timm einops` aus.</translation>
    </message>
    <message>
        <source>its sequences are too deep</source>
        <translation>ihre Sequenzen sind zu tief</translation>
    </message>
    <message>
        <source>its values are nested more than {max_depth} deep</source>
        <translation>ihre Werte sind mehr als {max_depth}-mal verschachtelt</translation>
    </message>
    <message>
        <source>its weights would have {total} bytes. At most {max_weights} are read.</source>
        <translation>die Gewichte hätten {total} Bytes. Höchstens {max_weights} werden gelesen.</translation>
    </message>
    <message>
        <source>job is</source>
        <translation>Auftrag ist</translation>
    </message>
    <message>
        <source>job {id} of {owner}</source>
        <translation>Auftrag {id} von {owner}</translation>
    </message>
    <message>
        <source>jobs are</source>
        <translation>Aufträge sind</translation>
    </message>
    <message>
        <source>kernel_sizes {kernels} must be odd.</source>
        <translation>kernel_sizes {kernels} müssen ungerade sein.</translation>
    </message>
    <message>
        <source>kind (SOPClassUID)</source>
        <translation>Art (SOPClassUID)</translation>
    </message>
    <message>
        <source>label map</source>
        <translation>Label-Map</translation>
    </message>
    <message>
        <source>label value {value} was used before, by {before}.</source>
        <translation>der Labelwert {value} wurde schon verwendet, von {before}.</translation>
    </message>
    <message>
        <source>label value {value} was used before, by {name}.</source>
        <translation>der Labelwert {value} wurde schon verwendet, von {name}.</translation>
    </message>
    <message>
        <source>label values must lie between 0 and {max_value}.</source>
        <translation>Labelwerte müssen zwischen 0 und {max_value} liegen.</translation>
    </message>
    <message>
        <source>label {value}, which the model does not give</source>
        <translation>das Label {value}, das das Modell nicht liefert</translation>
    </message>
    <message>
        <source>labels must be 0 to {listed} without gaps, as nnU-Net's network predicts them.</source>
        <translation>Labels müssen lückenlos 0 bis {listed} sein, wie das Netz von nnU-Net sie vorhersagt.</translation>
    </message>
    <message>
        <source>layer {name} has filters {filters}; 1 to {max_filters} were expected.</source>
        <translation>Schicht {name} hat filters {filters}; erwartet wurden 1 bis {max_filters}.</translation>
    </message>
    <message>
        <source>layer {name} has kernel_size {kernel}; odd numbers were expected.</source>
        <translation>Schicht {name} hat kernel_size {kernel}; erwartet wurden ungerade Zahlen.</translation>
    </message>
    <message>
        <source>layer {name} has use_bias {bias}; true or false is expected.</source>
        <translation>Schicht {name} hat use_bias {bias}; erwartet wird true oder false.</translation>
    </message>
    <message>
        <source>layer {name} has {filters} filters and the activation {activation}; the first layer has {filters2} and {activation2}. They must be the same.</source>
        <translation>Schicht {name} hat {filters} Filter und die Aktivierung {activation}; die erste Schicht hat {filters2} und {activation2}. Sie müssen gleich sein.</translation>
    </message>
    <message>
        <source>layer {name} has {key} {key2}; {allowed} is expected.</source>
        <translation>Schicht {name} hat {key} {key2}; erwartet wird {allowed}.</translation>
    </message>
    <message>
        <source>layer {name} has {key} {value}; three numbers of 1 to {largest} were expected.</source>
        <translation>Schicht {name} hat {key} {value}; erwartet wurden drei Zahlen von 1 bis {largest}.</translation>
    </message>
    <message>
        <source>layer {name} is not given what the layer before it returns, and only that.</source>
        <translation>Schicht {name} bekommt nicht genau das, was die Schicht davor liefert.</translation>
    </message>
    <message>
        <source>layer {name} is of the class {kind}; only {known} are read. Batch normalisation must be merged into the convolutions, and padding must be that of a convolution ('same').</source>
        <translation>Schicht {name} ist von der Klasse {kind}; nur {known} werden gelesen. Batch-Normierung muss in die Faltungen eingerechnet sein, und Auffüllen muss das einer Faltung sein ('same').</translation>
    </message>
    <message>
        <source>layer {name} must have a kernel of 3 x 3 x 3 and one dilation for all axes.</source>
        <translation>Schicht {name} muss einen Kern von 3 x 3 x 3 und eine Dilatation für alle Achsen haben.</translation>
    </message>
    <message>
        <source>layer {name}: after a layer whose name ends so, Brainchop's own code normalises the channels. Such models are not supported.</source>
        <translation>Schicht {name}: Nach einer Schicht, deren Name so endet, normiert Brainchop selbst die Kanäle. Solche Modelle werden nicht unterstützt.</translation>
    </message>
    <message>
        <source>layer {name}: an activation must follow a convolution that has none.</source>
        <translation>Schicht {name}: Eine Aktivierung muss einer Faltung folgen, die keine hat.</translation>
    </message>
    <message>
        <source>layer {name}: the first layer, and no other, must be an InputLayer.</source>
        <translation>Schicht {name}: Die erste Schicht und keine andere muss ein InputLayer sein.</translation>
    </message>
    <message>
        <source>leads out of the zip</source>
        <translation>führt aus der Zip-Datei hinaus</translation>
    </message>
    <message>
        <source>leaves open where its voxels are: its header can be understood in two ways{distance}</source>
        <translation>lässt offen, wo die Voxel liegen: Der Header lässt sich auf zwei Arten verstehen{distance}</translation>
    </message>
    <message>
        <source>left and right can be exchanged only in 3D images that are turned to a known orientation.</source>
        <translation>links und rechts können nur in 3D-Bildern vertauscht werden, die in eine bekannte Orientierung gedreht werden.</translation>
    </message>
    <message>
        <source>left and right cannot be exchanged: the label table has no left and right structures.</source>
        <translation>links und rechts können nicht vertauscht werden: die Labeltabelle hat keine linken und rechten Strukturen.</translation>
    </message>
    <message>
        <source>left and right cannot be exchanged: the network was trained with images mirrored that way.</source>
        <translation>links und rechts können nicht vertauscht werden: das Netz wurde mit so gespiegelten Bildern trainiert.</translation>
    </message>
    <message>
        <source>left and right cannot be exchanged: {error}</source>
        <translation>links und rechts können nicht vertauscht werden: {error}</translation>
    </message>
    <message>
        <source>left out</source>
        <translation>ausgelassen</translation>
    </message>
    <message>
        <source>locate_classes and locate_margin (--locate-classes, --locate-margin) need a model that locates: locate_with (--locate-with).</source>
        <translation>locate_classes und locate_margin (--locate-classes, --locate-margin) brauchen ein Modell, das die Lage findet: locate_with (--locate-with).</translation>
    </message>
    <message>
        <source>locate_with is {locate_with}; it must be a model, as open_model returns it.</source>
        <translation>locate_with ist {locate_with}; es muss ein Modell sein, wie open_model es liefert.</translation>
    </message>
    <message>
        <source>look-up table</source>
        <translation>Farbtabelle</translation>
    </message>
    <message>
        <source>mlp_ratio {mlp_ratio} must be a number above 0, at most {max_ratio}.</source>
        <translation>mlp_ratio {mlp_ratio} muss eine Zahl über 0 sein, höchstens {max_ratio}.</translation>
    </message>
    <message>
        <source>more than one voxel</source>
        <translation>mehr als ein Voxel</translation>
    </message>
    <message>
        <source>most_voxels must be a whole number.</source>
        <translation>most_voxels muss eine ganze Zahl sein.</translation>
    </message>
    <message>
        <source>multipart/related; type="application/dicom"</source>
        <translation>multipart/related; type="application/dicom"</translation>
    </message>
    <message>
        <source>multipart/related; type="application/dicom"; transfer-syntax=*</source>
        <translation>multipart/related; type="application/dicom"; transfer-syntax=*</translation>
    </message>
    <message>
        <source>n_conv_per_stage_encoder {blocks} must be a list of at most {max_stages} numbers.</source>
        <translation>n_conv_per_stage_encoder {blocks} muss eine Liste von höchstens {max_stages} Zahlen sein.</translation>
    </message>
    <message>
        <source>n_stages is {stages}; 2 to {max_stages} were expected.</source>
        <translation>n_stages ist {stages}; erwartet wurden 2 bis {max_stages}.</translation>
    </message>
    <message>
        <source>name the folder of one, such as {source}, or {way}</source>
        <translation>geben Sie den Ordner von einem an, etwa {source}, oder {way}</translation>
    </message>
    <message>
        <source>network on the {where}, rolling basis {ring}</source>
        <translation>Netz {where}, rollende Basis {ring}</translation>
    </message>
    <message>
        <source>no SOPInstanceUID</source>
        <translation>keine SOPInstanceUID</translation>
    </message>
    <message>
        <source>no fold</source>
        <translation>kein Fold</translation>
    </message>
    <message>
        <source>no label {value}</source>
        <translation>kein Label {value}</translation>
    </message>
    <message>
        <source>no modality</source>
        <translation>keine Modalität</translation>
    </message>
    <message>
        <source>no trainer of nnU-Net builds this {name}: nnU-Net takes the size of a Primus from its trainers, and not from the plans. Export a bundle instead.</source>
        <translation>kein Trainer von nnU-Net baut dieses {name}: nnU-Net nimmt die Größe eines Primus von seinen Trainern, nicht aus den Plänen. Exportieren Sie stattdessen ein Paket.</translation>
    </message>
    <message>
        <source>no type</source>
        <translation>kein Typ</translation>
    </message>
    <message>
        <source>nonlin {nonlin} is not one of {nonlinearities} of torch.nn.</source>
        <translation>nonlin {nonlin} ist keine von {nonlinearities} aus torch.nn.</translation>
    </message>
    <message>
        <source>normalize_mode {unknown} is not one of {kinds}.</source>
        <translation>normalize_mode {unknown} ist keines von {kinds}.</translation>
    </message>
    <message>
        <source>not exactly one model {configuration}</source>
        <translation>nicht genau ein Modell {configuration}</translation>
    </message>
    <message>
        <source>not known</source>
        <translation>nicht bekannt</translation>
    </message>
    <message>
        <source>not needed</source>
        <translation>nicht nötig</translation>
    </message>
    <message>
        <source>not sent</source>
        <translation>nicht gesendet</translation>
    </message>
    <message>
        <source>not stated</source>
        <translation>nicht angegeben</translation>
    </message>
    <message>
        <source>number of values in a pixel</source>
        <translation>Zahl der Werte je Pixel</translation>
    </message>
    <message>
        <source>on the GPU</source>
        <translation>auf der GPU</translation>
    </message>
    <message>
        <source>orientation (ImageOrientationPatient)</source>
        <translation>Ausrichtung (ImageOrientationPatient)</translation>
    </message>
    <message>
        <source>patch_embed_size {block} does not fit {name}, whose tokens have {wanted}.</source>
        <translation>patch_embed_size {block} passt nicht zu {name}, dessen Tokens {wanted} haben.</translation>
    </message>
    <message>
        <source>patch_embed_size {block} must be three powers of 2, at most {max_block}.</source>
        <translation>patch_embed_size {block} muss aus drei Zweierpotenzen bestehen, höchstens {max_block}.</translation>
    </message>
    <message>
        <source>patch_size {patch} must be a multiple of {factor} along axis {axis}.</source>
        <translation>patch_size {patch} muss entlang der Achse {axis} ein Vielfaches von {factor} sein.</translation>
    </message>
    <message>
        <source>patch_size {patch} must be two or three whole numbers, at most {max_patch_voxels} voxels.</source>
        <translation>patch_size {patch} muss aus zwei oder drei ganzen Zahlen bestehen, höchstens {max_patch_voxels} Voxel.</translation>
    </message>
    <message>
        <source>patch_size {size} is not divisible by the product of the strides {per_stage}.</source>
        <translation>patch_size {size} ist nicht durch das Produkt der Schrittweiten {per_stage} teilbar.</translation>
    </message>
    <message>
        <source>patch_size {size} is not divisible by {side}, the size of a token of {name}: it cannot have been trained so. Train with a patch of multiples of it.</source>
        <translation>patch_size {size} ist nicht durch {side} teilbar, die Größe eines Tokens von {name}: So kann es nicht trainiert worden sein. Trainieren Sie mit einem Patch aus Vielfachen davon.</translation>
    </message>
    <message>
        <source>paths of files</source>
        <translation>Dateipfaden</translation>
    </message>
    <message>
        <source>pixel spacing</source>
        <translation>Pixelabstand</translation>
    </message>
    <message>
        <source>pixel spacing (PixelSpacing)</source>
        <translation>Pixelabstand (PixelSpacing)</translation>
    </message>
    <message>
        <source>position (ImagePositionPatient)</source>
        <translation>Position (ImagePositionPatient)</translation>
    </message>
    <message>
        <source>reported must be a JSON object.</source>
        <translation>reported muss ein JSON-Objekt sein.</translation>
    </message>
    <message>
        <source>resolution {resolution} must be three positive numbers (mm).</source>
        <translation>resolution {resolution} muss aus drei positiven Zahlen bestehen (mm).</translation>
    </message>
    <message>
        <source>series (SeriesInstanceUID)</source>
        <translation>Serie (SeriesInstanceUID)</translation>
    </message>
    <message>
        <source>series of the study {study}</source>
        <translation>Serien der Studie {study}</translation>
    </message>
    <message>
        <source>several models</source>
        <translation>mehrere Modelle</translation>
    </message>
    <message>
        <source>smallest island</source>
        <translation>kleinste Insel</translation>
    </message>
    <message>
        <source>spacing {spacing} must be {patch} positive numbers (mm).</source>
        <translation>spacing {spacing} muss aus {patch} positiven Zahlen bestehen (mm).</translation>
    </message>
    <message>
        <source>status {status_code} without JSON</source>
        <translation>Status {status_code} ohne JSON</translation>
    </message>
    <message>
        <source>study (StudyInstanceUID)</source>
        <translation>Studie (StudyInstanceUID)</translation>
    </message>
    <message>
        <source>the GPU there has {most} GB</source>
        <translation>die GPU dort hat {most} GB</translation>
    </message>
    <message>
        <source>the GPUs there have {least} to {most} GB</source>
        <translation>die GPUs dort haben {least} bis {most} GB</translation>
    </message>
    <message>
        <source>the activation {value} is not a name.</source>
        <translation>die Aktivierung {value} ist kein Name.</translation>
    </message>
    <message>
        <source>the architecture cannot be built ({name}: {error}).</source>
        <translation>die Architektur kann nicht gebaut werden ({name}: {error}).</translation>
    </message>
    <message>
        <source>the architecture cannot be built: {key} {value} must be {count} whole number(s).</source>
        <translation>die Architektur kann nicht gebaut werden: {key} {value} muss aus {count} ganzen Zahlen bestehen.</translation>
    </message>
    <message>
        <source>the architecture cannot be built: {name} may not be given {key} in plans, only {known}.</source>
        <translation>die Architektur kann nicht gebaut werden: {key} darf in Plänen für {name} nicht stehen, nur {known}.</translation>
    </message>
    <message>
        <source>the channels of the first stage are {first}; 1 to {max_features} were expected.</source>
        <translation>die Kanäle der ersten Stufe sind {first}; erwartet wurden 1 bis {max_features}.</translation>
    </message>
    <message>
        <source>the date</source>
        <translation>das Datum</translation>
    </message>
    <message>
        <source>the description</source>
        <translation>die Beschreibung</translation>
    </message>
    <message>
        <source>the description of the model {model} {error}</source>
        <translation>die Beschreibung des Modells {model} {error}</translation>
    </message>
    <message>
        <source>the disk took only part of the file</source>
        <translation>der Datenträger nahm nur einen Teil der Datei an</translation>
    </message>
    <message>
        <source>the entry {key} is missing or not valid.</source>
        <translation>der Eintrag {key} fehlt oder ist ungültig.</translation>
    </message>
    <message>
        <source>the first line has more than one column {column}.</source>
        <translation>die erste Zeile hat mehr als eine Spalte {column}.</translation>
    </message>
    <message>
        <source>the first line has no column {column}; it has {found}. A label table is a CSV file with the columns LabelValue and Name, separated by commas, such as a colour table that 3D Slicer writes. Colour tables of another form have names that end with .ctbl or .txt.</source>
        <translation>die erste Zeile hat keine Spalte {column}, sondern {found}. Eine Label-Tabelle ist eine CSV-Datei mit den Spalten LabelValue und Name, durch Kommas getrennt, wie eine Farbtabelle von 3D Slicer. Die Namen von Farbtabellen anderer Form enden auf .ctbl oder .txt.</translation>
    </message>
    <message>
        <source>the headers of the answer did not come in {seconds} s</source>
        <translation>die Kopfzeilen der Antwort kamen nicht in {seconds} s</translation>
    </message>
    <message>
        <source>the image</source>
        <translation>das Bild</translation>
    </message>
    <message>
        <source>the images{secret}</source>
        <translation>die Bilder{secret}</translation>
    </message>
    <message>
        <source>the intensity properties of channel {channel} have a negative std, or percentiles in the wrong order.</source>
        <translation>die Intensitätseigenschaften von Kanal {channel} haben eine negative std oder Perzentile in falscher Reihenfolge.</translation>
    </message>
    <message>
        <source>the intensity properties of channel {channel} lack one of {wanted}.</source>
        <translation>den Intensitätseigenschaften von Kanal {channel} fehlt eine von {wanted}.</translation>
    </message>
    <message>
        <source>the items of a {name}</source>
        <translation>die Elemente eines {name}</translation>
    </message>
    <message>
        <source>the label value {entry} is not a whole number.</source>
        <translation>der Labelwert {entry} ist keine ganze Zahl.</translation>
    </message>
    <message>
        <source>the labels cannot be used ({name}: {error}).</source>
        <translation>die Labels sind nicht verwendbar ({name}: {error}).</translation>
    </message>
    <message>
        <source>the labels of dataset.json cannot be used ({name}: {error}).</source>
        <translation>die Labels von dataset.json sind nicht verwendbar ({name}: {error}).</translation>
    </message>
    <message>
        <source>the layer {stage}0 has {bias} channels, but nnU-Net's would have {width}.</source>
        <translation>die Schicht {stage}0 hat {bias} Kanäle, bei nnU-Net wären es {width}.</translation>
    </message>
    <message>
        <source>the manifest of this bundle</source>
        <translation>das Manifest dieses Pakets</translation>
    </message>
    <message>
        <source>the modalities</source>
        <translation>die Modalitäten</translation>
    </message>
    <message>
        <source>the name of a layer, {name}, is missing, not a plain name, or used twice.</source>
        <translation>der Name einer Schicht, {name}, fehlt, ist kein einfacher Name oder kommt zweimal vor.</translation>
    </message>
    <message>
        <source>the network would have {parameters} parameters. At most {max_parameters} are built.</source>
        <translation>das Netz hätte {parameters} Parameter. Höchstens {max_parameters} werden gebaut.</translation>
    </message>
    <message>
        <source>the path of a file</source>
        <translation>der Pfad einer Datei</translation>
    </message>
    <message>
        <source>the patient ID</source>
        <translation>die Patienten-ID</translation>
    </message>
    <message>
        <source>the patient's name</source>
        <translation>den Namen des Patienten</translation>
    </message>
    <message>
        <source>the result is not finite</source>
        <translation>das Ergebnis ist nicht endlich</translation>
    </message>
    <message>
        <source>the server had nothing more to send</source>
        <translation>der Server hatte nichts mehr zu senden</translation>
    </message>
    <message>
        <source>the server sent a different range than requested, or a different file</source>
        <translation>der Server sandte einen anderen Abschnitt als angefordert oder eine andere Datei</translation>
    </message>
    <message>
        <source>the shape of its input, {shape}, must be [null, D, H, W, channels], with sides of 1 to {max_side}.</source>
        <translation>die Form der Eingabe, {shape}, muss [null, D, H, W, channels] sein, mit Seiten von 1 bis {max_side}.</translation>
    </message>
    <message>
        <source>the state of a {name}</source>
        <translation>der Zustand eines {name}</translation>
    </message>
    <message>
        <source>the study</source>
        <translation>die Studie</translation>
    </message>
    <message>
        <source>the table has {count} labels from {least} to {largest}</source>
        <translation>die Tabelle hat {count} Labels von {least} bis {largest}</translation>
    </message>
    <message>
        <source>the table is empty</source>
        <translation>die Tabelle ist leer</translation>
    </message>
    <message>
        <source>the token</source>
        <translation>das Token</translation>
    </message>
    <message>
        <source>the weights are in {value}; the plain name of a file beside it is expected.</source>
        <translation>die Gewichte sind in {value}; erwartet wird der einfache Name einer Datei daneben.</translation>
    </message>
    <message>
        <source>the weights do not belong to plans.json: {aliases} is missing.</source>
        <translation>die Gewichte gehören nicht zu plans.json: {aliases} fehlt.</translation>
    </message>
    <message>
        <source>the weights do not belong to plans.json: {foreign} is not part of the network.</source>
        <translation>die Gewichte gehören nicht zu plans.json: {foreign} ist kein Teil des Netzes.</translation>
    </message>
    <message>
        <source>the weights do not fit: {fault}.</source>
        <translation>die Gewichte passen nicht: {fault}.</translation>
    </message>
    <message>
        <source>there are no folds</source>
        <translation>es gibt keine Folds</translation>
    </message>
    <message>
        <source>there are {most} GB of RAM</source>
        <translation>dort sind {most} GB RAM</translation>
    </message>
    <message>
        <source>there is no DICOMweb service at this address. Give its root, such as http://localhost:8042/dicom-web</source>
        <translation>unter dieser Adresse ist kein DICOMweb-Dienst. Geben Sie dessen Wurzel an, wie http://localhost:8042/dicom-web</translation>
    </message>
    <message>
        <source>there is no DICOMweb service that stores at this address. Give its root, without /studies</source>
        <translation>unter dieser Adresse ist kein DICOMweb-Dienst, der speichert. Geben Sie dessen Wurzel an, ohne /studies</translation>
    </message>
    <message>
        <source>there is no {key} in it</source>
        <translation>{key} fehlt darin</translation>
    </message>
    <message>
        <source>they have {found} classes, dataset.json has {shape}</source>
        <translation>sie haben {found} Klassen, dataset.json hat {shape}</translation>
    </message>
    <message>
        <source>they take {found} channels, dataset.json has {shape}</source>
        <translation>sie nehmen {found} Kanäle, dataset.json hat {shape}</translation>
    </message>
    <message>
        <source>this user may not see this. Ask the administrator of the archive</source>
        <translation>dieser Benutzer darf das nicht sehen. Fragen Sie die Verwaltung des Archivs</translation>
    </message>
    <message>
        <source>this user may not store here. Ask the administrator of the archive</source>
        <translation>dieser Benutzer darf hier nicht speichern. Fragen Sie die Verwaltung des Archivs</translation>
    </message>
    <message>
        <source>this user may not store it</source>
        <translation>dieser Benutzer darf sie nicht speichern</translation>
    </message>
    <message>
        <source>three for each of its {declared} points</source>
        <translation>drei für jeden ihrer {declared} Punkte</translation>
    </message>
    <message>
        <source>too many of its keys are no text</source>
        <translation>zu viele ihrer Schlüssel sind kein Text</translation>
    </message>
    <message>
        <source>transpose_backward {backward} is not the inverse of transpose_forward {forward}.</source>
        <translation>transpose_backward {backward} ist nicht die Umkehrung von transpose_forward {forward}.</translation>
    </message>
    <message>
        <source>transpose_forward {forward} is not a permutation of the axes 0, 1, 2.</source>
        <translation>transpose_forward {forward} ist keine Permutation der Achsen 0, 1, 2.</translation>
    </message>
    <message>
        <source>true or false</source>
        <translation>true oder false</translation>
    </message>
    <message>
        <source>two models have the {kind} {value}.</source>
        <translation>zwei Modelle haben {kind} {value}.</translation>
    </message>
    <message>
        <source>two parts would be kept under the same file name. Give them different ones.</source>
        <translation>zwei Teile kämen unter denselben Dateinamen. Geben Sie ihnen verschiedene.</translation>
    </message>
    <message>
        <source>upsample_mode {upsample_mode} of {name} is not supported, only 'deconv'.</source>
        <translation>upsample_mode {upsample_mode} von {name} wird nicht unterstützt, nur 'deconv'.</translation>
    </message>
    <message>
        <source>use_mask_for_norm {masks} must be true or false for each channel.</source>
        <translation>use_mask_for_norm {masks} muss für jeden Kanal true oder false sein.</translation>
    </message>
    <message>
        <source>value, name, red, green, blue, opacity</source>
        <translation>Wert, Name, Rot, Grün, Blau, Deckkraft</translation>
    </message>
    <message>
        <source>which means nothing</source>
        <translation>was nichts bedeutet</translation>
    </message>
    <message>
        <source>whole body</source>
        <translation>ganzer Körper</translation>
    </message>
    <message>
        <source>without a result</source>
        <translation>ohne Ergebnis</translation>
    </message>
    <message>
        <source>{addresses} gave a different file than on {day} (SHA-256 {digest}, then {sha256}), so the new file was not kept. If you expected a change, delete {place} and download it again.</source>
        <translation>{addresses} lieferte eine andere Datei als am {day} (SHA-256 {digest}, damals {sha256}), deshalb wurde die neue nicht behalten. Wenn Sie eine Änderung erwartet haben, löschen Sie {place} und laden Sie noch einmal herunter.</translation>
    </message>
    <message>
        <source>{address} answers with something else than a DICOM archive would (status {status_code}, {kind}). Give the root of its DICOMweb service, such as http://localhost:8042/dicom-web for Orthanc. {answer}</source>
        <translation>{address} antwortet anders als ein DICOM-Archiv (Status {status_code}, {kind}). Geben Sie die Wurzel des DICOMweb-Dienstes an, wie http://localhost:8042/dicom-web bei Orthanc. {answer}</translation>
    </message>
    <message>
        <source>{address} answers with something that cannot be decompressed ({error}). Tell its administrator.</source>
        <translation>{address} antwortet mit etwas, das sich nicht entpacken lässt ({error}). Sagen Sie es der Verwaltung des Archivs.</translation>
    </message>
    <message>
        <source>{address} answers with status {status_code}</source>
        <translation>{address} antwortet mit Status {status_code}</translation>
    </message>
    <message>
        <source>{address} answers with status {status}: {said}. {answer}</source>
        <translation>{address} antwortet mit Status {status}: {said}. {answer}</translation>
    </message>
    <message>
        <source>{address} asks for a token. {token_hint}</source>
        <translation>{address} verlangt ein Token. {token_hint}</translation>
    </message>
    <message>
        <source>{address} cannot be asked ({error}). Check the address, and the proxy in the environment variables HTTPS_PROXY, HTTP_PROXY and ALL_PROXY.</source>
        <translation>{address} kann nicht gefragt werden ({error}). Prüfen Sie die Adresse und den Proxy in den Umgebungsvariablen HTTPS_PROXY, HTTP_PROXY und ALL_PROXY.</translation>
    </message>
    <message>
        <source>{address} cannot be asked ({said}). Check the address.</source>
        <translation>{address} kann nicht gefragt werden ({said}). Prüfen Sie die Adresse.</translation>
    </message>
    <message>
        <source>{address} cannot be reached ({said}). Check host and port, and whether the archive runs.</source>
        <translation>{address} ist nicht erreichbar ({said}). Prüfen Sie Host und Port, und ob das Archiv läuft.</translation>
    </message>
    <message>
        <source>{address} cannot be reached ({said}). Check host and port, and whether the server runs.</source>
        <translation>{address} ist nicht zu erreichen ({said}). Prüfen Sie Rechner und Port, und ob der Server läuft.</translation>
    </message>
    <message>
        <source>{address} could not be reached, or the connection was lost ({error}). {have} bytes have arrived and are kept. Check the network and download again to get the rest, or get the file in another way and save it as {target}.</source>
        <translation>{address} war nicht erreichbar, oder die Verbindung ist abgebrochen ({error}). {have} Bytes sind angekommen und bleiben erhalten. Prüfen Sie das Netz und laden Sie den Rest noch einmal herunter, oder besorgen Sie die Datei anders und speichern Sie sie als {target}.</translation>
    </message>
    <message>
        <source>{address} did not answer, or the connection was lost ({error}). Try again.</source>
        <translation>{address} hat nicht geantwortet, oder die Verbindung ging verloren ({error}). Versuchen Sie es noch einmal.</translation>
    </message>
    <message>
        <source>{address} did not answer, or the connection was lost ({said}). Whether it has stored the files is not known. Send them again: archives keep one copy.</source>
        <translation>{address} hat nicht geantwortet, oder die Verbindung ging verloren ({said}). Ob die Dateien gespeichert sind, ist nicht bekannt. Sehen Sie dort nach, bevor Sie noch einmal senden.</translation>
    </message>
    <message>
        <source>{address} does not answer for now (status {status}). {message}</source>
        <translation>{address} antwortet zurzeit nicht (Status {status}). {message}</translation>
    </message>
    <message>
        <source>{address} does not answer. It is asked again, for {minutes} minutes at most.</source>
        <translation>{address} antwortet nicht. Es wird wieder gefragt, höchstens {minutes} Minuten lang.</translation>
    </message>
    <message>
        <source>{address} does not describe {what} as it should. Update ClassScaleSeg there and here.</source>
        <translation>{address} beschreibt {what} nicht, wie es sein soll. Aktualisieren Sie ClassScaleSeg dort und hier.</translation>
    </message>
    <message>
        <source>{address} does not exist (status {status}): the file was moved or withdrawn. Look for its new address.</source>
        <translation>{address} existiert nicht (Status {status}): Die Datei wurde verschoben oder zurückgezogen. Suchen Sie die neue Adresse.</translation>
    </message>
    <message>
        <source>{address} does not say which models it offers. Update ClassScaleSeg there and here.</source>
        <translation>{address} sagt nicht, welche Modelle er anbietet. Aktualisieren Sie ClassScaleSeg dort und hier.</translation>
    </message>
    <message>
        <source>{address} does not take the token. Check it, or ask the person who runs the server for a new one.</source>
        <translation>{address} nimmt das Token nicht an. Prüfen Sie es, oder bitten Sie die Person, die den Server betreibt, um ein neues.</translation>
    </message>
    <message>
        <source>{address} has no model {text}. It offers {offered}.</source>
        <translation>{address} hat kein Modell {text}. Er bietet an: {offered}.</translation>
    </message>
    <message>
        <source>{address} has no room on its disk. {message}</source>
        <translation>{address} hat auf seiner Platte keinen Platz. {message}</translation>
    </message>
    <message>
        <source>{address} has not answered for {patience} s. Its last fault: {error} Ask the person who runs the server.</source>
        <translation>{address} hat {patience} s lang nicht geantwortet. Der letzte Fehler: {error} Fragen Sie die Person, die den Server betreibt.</translation>
    </message>
    <message>
        <source>{address} has not sent a whole answer for {seconds} s. Ask the person who runs the server.</source>
        <translation>{address} hat seit {seconds} s keine vollständige Antwort gesendet. Fragen Sie die Person, die den Server betreibt.</translation>
    </message>
    <message>
        <source>{address} has not stored the result ({state}). {sent}</source>
        <translation>{address} hat das Ergebnis nicht gespeichert ({state}). {sent}</translation>
    </message>
    <message>
        <source>{address} has {declared} bytes, but {size} were expected: the file was replaced. If you trust the new one, add it as your own model: classscaleseg models add {address2}</source>
        <translation>{address} hat {declared} Bytes, erwartet wurden {size}: Die Datei wurde ersetzt. Wenn Sie der neuen vertrauen, fügen Sie sie als eigenes Modell hinzu: classscaleseg models add {address2}</translation>
    </message>
    <message>
        <source>{address} has {total} bytes, but at most {max_download} are downloaded. Get the file in another way.</source>
        <translation>{address} hat {total} Bytes, aber höchstens {max_download} werden heruntergeladen. Besorgen Sie die Datei anders.</translation>
    </message>
    <message>
        <source>{address} is not a server of ClassScaleSeg ({found}). Check host and port.</source>
        <translation>{address} ist kein Server von ClassScaleSeg ({found}). Prüfen Sie Rechner und Port.</translation>
    </message>
    <message>
        <source>{address} is not an address of a DICOM archive. Give the root of its DICOMweb service, such as https://pacs.example.org/dicom-web.</source>
        <translation>{address} ist keine Adresse eines DICOM-Archivs. Geben Sie die Wurzel seines DICOMweb-Dienstes an, wie https://pacs.example.org/dicom-web.</translation>
    </message>
    <message>
        <source>{address} is not an address of a file. It must start with https:// or http:// and contain no space.</source>
        <translation>{address} ist keine Adresse einer Datei. Sie muss mit https:// oder http:// beginnen und darf kein Leerzeichen enthalten.</translation>
    </message>
    <message>
        <source>{address} is not open to everyone (status {status}). Get the file by hand.</source>
        <translation>{address} ist nicht allgemein zugänglich (Status {status}). Besorgen Sie die Datei von Hand.</translation>
    </message>
    <message>
        <source>{address} is not the address of a server. Write it as {example}.</source>
        <translation>{address} ist nicht die Adresse eines Servers. Schreiben Sie sie wie {example}.</translation>
    </message>
    <message>
        <source>{address} leads from https to {following}, which others can alter in transit, so it was not followed. Get the file in another way.</source>
        <translation>{address} führt von https zu {following}; das können andere unterwegs verändern, deshalb wurde es nicht verfolgt. Besorgen Sie die Datei anders.</translation>
    </message>
    <message>
        <source>{address} leads through more than {redirects} redirects, which were not followed. Give the address of the file itself.</source>
        <translation>{address} führt über mehr als {redirects} Weiterleitungen, die nicht verfolgt wurden. Geben Sie die Adresse der Datei selbst an.</translation>
    </message>
    <message>
        <source>{address} leads to {target}, where nothing was asked. Give the address of the archive itself; if that is it, the archive may ask for a login.</source>
        <translation>{address} führt zu {target}; dort wurde nichts gefragt. Geben Sie die Adresse des Archivs selbst an; ist sie das, verlangt das Archiv vielleicht eine Anmeldung.</translation>
    </message>
    <message>
        <source>{address} leads to {target}, where nothing was sent. Give the address of the archive itself; if that is it, the archive may ask for a login.</source>
        <translation>{address} führt zu {target}; dorthin wurde nichts gesendet. Geben Sie die Adresse des Archivs selbst an; ist sie das, verlangt das Archiv vielleicht eine Anmeldung.</translation>
    </message>
    <message>
        <source>{address} leads to {target}, where nothing was sent. Give the address of the server itself.</source>
        <translation>{address} führt zu {target}; dorthin wurde nichts gesendet. Geben Sie die Adresse des Servers selbst an.</translation>
    </message>
    <message>
        <source>{address} lost the image {restarts} times while it was sent. Ask the person who runs the server.</source>
        <translation>{address} hat das Bild beim Senden {restarts}-mal verloren. Fragen Sie die Person, die den Server betreibt.</translation>
    </message>
    <message>
        <source>{address} offers a model that cannot be used: {error}</source>
        <translation>{address} bietet ein Modell an, das nicht zu gebrauchen ist: {error}</translation>
    </message>
    <message>
        <source>{address} packs its answer ({packed}), which was not asked for. If there is a proxy in between, let it pass on answers as they are.</source>
        <translation>{address} packt seine Antwort ({packed}), was nicht verlangt war. Falls ein Proxy dazwischen ist, soll er Antworten unverändert weitergeben.</translation>
    </message>
    <message>
        <source>{address} runs ClassScaleSeg {version} (protocol {api}), and here is {version2} (protocol {api2}). Update ClassScaleSeg {which}.</source>
        <translation>Auf {address} läuft ClassScaleSeg {version} (Protokoll {api}), und hier {version2} (Protokoll {api2}). Aktualisieren Sie ClassScaleSeg {which}.</translation>
    </message>
    <message>
        <source>{address} runs ClassScaleSeg {version}. {token}</source>
        <translation>Auf {address} läuft ClassScaleSeg {version}. {token}</translation>
    </message>
    <message>
        <source>{address} sends more than the {most} bytes that were expected.</source>
        <translation>{address} sendet mehr als die {most} Bytes, die zu erwarten waren.</translation>
    </message>
    <message>
        <source>{address} sent a file that is not a zip (it begins with {chunk}). Open the address in a browser to see what it is; it may require a login.</source>
        <translation>{address} sandte eine Datei, die keine Zip-Datei ist (sie beginnt mit {chunk}). Öffnen Sie die Adresse im Browser, um zu sehen, was es ist; vielleicht müssen Sie sich anmelden.</translation>
    </message>
    <message>
        <source>{address} sent more than {total} bytes, so the download was stopped. Get the file in another way.</source>
        <translation>{address} sandte mehr als {total} Bytes, deshalb wurde der Download abgebrochen. Besorgen Sie die Datei anders.</translation>
    </message>
    <message>
        <source>{address} speaks http, not https. If that is right, write http://{address2}; what is sent is not encrypted then.</source>
        <translation>{address} spricht http, nicht https. Wenn das stimmt, schreiben Sie http://{address2}; was gesendet wird, ist dann nicht verschlüsselt.</translation>
    </message>
    <message>
        <source>{address} speaks https, not http. Write https://{address2}.</source>
        <translation>{address} spricht https, nicht http. Schreiben Sie https://{address2}.</translation>
    </message>
    <message>
        <source>{address} takes no more at the moment. {message}</source>
        <translation>{address} nimmt zurzeit nichts mehr an. {message}</translation>
    </message>
    <message>
        <source>{address} was started again {restarts} times in the middle. Ask the person who runs the server.</source>
        <translation>{address} wurde {restarts}-mal mittendrin neu gestartet. Fragen Sie die Person, die den Server betreibt.</translation>
    </message>
    <message>
        <source>{address} was started again; the image is sent once more.</source>
        <translation>{address} wurde neu gestartet; das Bild wird noch einmal gesendet.</translation>
    </message>
    <message>
        <source>{address} would send {size} bytes, more than the result can have. Nothing was fetched.</source>
        <translation>{address} würde {size} Bytes senden, mehr als das Ergebnis haben kann. Es wurde nichts geholt.</translation>
    </message>
    <message>
        <source>{address} {what} (status 401). Give --user and the password, or a token in the environment variable CLASSSCALESEG_DICOM_TOKEN.</source>
        <translation>{address} {what} (Status 401). Geben Sie Benutzer und Passwort oder ein Token ein.</translation>
    </message>
    <message>
        <source>{address}: no trusted encrypted connection ({said}). Check the address; if the archive has a certificate of your own network, name its file in the environment variable REQUESTS_CA_BUNDLE.</source>
        <translation>{address}: keine vertrauenswürdige verschlüsselte Verbindung ({said}). Prüfen Sie die Adresse; hat das Archiv ein Zertifikat Ihres eigenen Netzes, so wählen Sie dessen Datei in der Zeile „Zertifikat“.</translation>
    </message>
    <message>
        <source>{address}: the connection was lost (nothing arrives).</source>
        <translation>{address}: Die Verbindung ist abgebrochen (nichts kommt an).</translation>
    </message>
    <message>
        <source>{address}: the connection was lost (the answer breaks off).</source>
        <translation>{address}: Die Verbindung ging verloren (die Antwort bricht ab).</translation>
    </message>
    <message>
        <source>{address}: the connection was lost ({done} bytes have arrived).</source>
        <translation>{address}: Die Verbindung ist abgebrochen ({done} Bytes sind angekommen).</translation>
    </message>
    <message>
        <source>{address}: the connection was lost ({said}).</source>
        <translation>{address}: Die Verbindung ist abgebrochen ({said}).</translation>
    </message>
    <message>
        <source>{address}: the proxy failed ({said}). Correct the environment variables HTTPS_PROXY and HTTP_PROXY, or name the archive in NO_PROXY.</source>
        <translation>{address}: Der Proxy hat versagt ({said}). Korrigieren Sie die Umgebungsvariablen HTTPS_PROXY und HTTP_PROXY, oder nennen Sie das Archiv in NO_PROXY.</translation>
    </message>
    <message>
        <source>{address}: the proxy failed ({said}). Correct the environment variables HTTPS_PROXY and HTTP_PROXY, or name the server in NO_PROXY.</source>
        <translation>{address}: Der Proxy ist gescheitert ({said}). Berichtigen Sie die Umgebungsvariablen HTTPS_PROXY und HTTP_PROXY, oder nennen Sie den Server in NO_PROXY.</translation>
    </message>
    <message>
        <source>{address}: the server answered with status {status}. Try again later.</source>
        <translation>{address}: Der Server antwortete mit dem Status {status}. Versuchen Sie es später noch einmal.</translation>
    </message>
    <message>
        <source>{cause}. Continuing with the {current}.</source>
        <translation>{cause}. Es geht weiter mit: {current}.</translation>
    </message>
    <message>
        <source>{columns} and {columns2} must both be given, or neither of them.</source>
        <translation>{columns} und {columns2} müssen beide angegeben sein oder keine von beiden.</translation>
    </message>
    <message>
        <source>{copies} left out: the same slices are there twice.</source>
        <translation>{copies} weggelassen: Dieselben Schichten sind zweimal da.</translation>
    </message>
    <message>
        <source>{count} jobs of this token wait or run already, as many as this server takes. Try again later.</source>
        <translation>{count} Aufträge dieses Tokens warten oder laufen schon; mehr nimmt dieser Server nicht. Versuchen Sie es später noch einmal.</translation>
    </message>
    <message>
        <source>{distance} mm apart, {distance2} slices</source>
        <translation>{distance} mm auseinander, {distance2} Schichten</translation>
    </message>
    <message>
        <source>{entry} has a {key} that is not valid: {key2}.</source>
        <translation>{entry} hat ein {key}, das ungültig ist: {key2}.</translation>
    </message>
    <message>
        <source>{entry} {given} is for models of one channel and three dimensions.</source>
        <translation>{entry} {given} ist für Modelle mit einem Kanal und drei Dimensionen.</translation>
    </message>
    <message>
        <source>{entry} {given} is of a kind that is not known. Update ClassScaleSeg.</source>
        <translation>{entry} {given} ist von unbekannter Art. Aktualisieren Sie ClassScaleSeg.</translation>
    </message>
    <message>
        <source>{error} To locate classes, name the folder or file of a single model.</source>
        <translation>{error} Um die Lage von Klassen zu finden, geben Sie den Ordner oder die Datei eines einzelnen Modells an.</translation>
    </message>
    <message>
        <source>{error} What you have painted is the segmentation {value}.</source>
        <translation>{error} Was Sie gezeichnet haben, ist die Segmentierung {value}.</translation>
    </message>
    <message>
        <source>{fields} fields were found, {header} were expected.</source>
        <translation>{fields} Felder wurden gefunden, {header} erwartet.</translation>
    </message>
    <message>
        <source>{filename} cannot be read ({strerror}).</source>
        <translation>{filename} kann nicht gelesen werden ({strerror}).</translation>
    </message>
    <message>
        <source>{files} and {files2} are of one case: move one of them elsewhere.</source>
        <translation>{files} und {files2} gehören zu einem Fall: Verschieben Sie eine der beiden Dateien.</translation>
    </message>
    <message>
        <source>{files} and {files2} are structure sets, which have contours and no voxels: name an image, or the folder of a DICOM series, on whose grid they are compared (--grid).</source>
        <translation>{files} und {files2} sind Strukturdatensätze, die Konturen und keine Voxel haben: Nennen Sie ein Bild oder den Ordner einer DICOM-Serie, auf deren Gitter sie verglichen werden (--grid).</translation>
    </message>
    <message>
        <source>{files} and {files2} have different frames of reference (FrameOfReferenceUID). They are compared as if it were the same.</source>
        <translation>{files} und {files2} haben verschiedene Bezugsrahmen (FrameOfReferenceUID). Sie werden verglichen, als wäre es derselbe.</translation>
    </message>
    <message>
        <source>{files} and {files2} more</source>
        <translation>{files} und {files2} weitere</translation>
    </message>
    <message>
        <source>{files} has {count} million voxels{where}; at most {most} are allowed here. Crop it first, or segment it elsewhere.</source>
        <translation>{files} hat {count} Millionen Voxel{where}; hier sind höchstens {most} erlaubt. Schneiden Sie es zu, oder segmentieren Sie es anderswo.</translation>
    </message>
    <message>
        <source>{files} lies outside of {files2}: they have no place in common. Compare the origins of both.</source>
        <translation>{files} liegt außerhalb von {files2}: Sie haben keinen Ort gemeinsam. Vergleichen Sie die Ursprünge von beiden.</translation>
    </message>
    <message>
        <source>{file} accompanies images and is none (Modality {modality}). Name the folder of the series.</source>
        <translation>{file} begleitet Bilder und ist selbst keines (Modality {modality}). Nennen Sie den Ordner der Serie.</translation>
    </message>
    <message>
        <source>{file} asks for no token.</source>
        <translation>{file} verlangt kein Token.</translation>
    </message>
    <message>
        <source>{file} calls the label value 0 "{background}". Here 0 is the background.</source>
        <translation>{file} nennt den Labelwert 0 „{background}“. Hier ist 0 der Hintergrund.</translation>
    </message>
    <message>
        <source>{file} cannot be deleted ({error}). Delete it.</source>
        <translation>{file} kann nicht gelöscht werden ({error}). Löschen Sie die Datei.</translation>
    </message>
    <message>
        <source>{file} cannot be read ({error}).</source>
        <translation>{file} kann nicht gelesen werden ({error}).</translation>
    </message>
    <message>
        <source>{file} cannot be read ({error}). Delete it, and the series is segmented again.</source>
        <translation>{file} kann nicht gelesen werden ({error}). Löschen Sie die Datei, und die Serie wird noch einmal segmentiert.</translation>
    </message>
    <message>
        <source>{file} cannot be read ({fault}). Remove it, and add again what it had.</source>
        <translation>{file} ist nicht lesbar ({fault}). Entfernen Sie die Datei, und fügen Sie wieder hinzu, was darin stand.</translation>
    </message>
    <message>
        <source>{file} cannot be read ({strerror}).</source>
        <translation>{file} kann nicht gelesen werden ({strerror}).</translation>
    </message>
    <message>
        <source>{file} cannot be read ({why}). Save the case again when it can be.</source>
        <translation>{file} kann nicht gelesen werden ({why}). Speichern Sie den Fall noch einmal, sobald es geht.</translation>
    </message>
    <message>
        <source>{file} cannot be read any more ({strerror}).</source>
        <translation>{file} kann nicht mehr gelesen werden ({strerror}).</translation>
    </message>
    <message>
        <source>{file} cannot be read as a DICOM segmentation ({error}). Export it again.</source>
        <translation>{file} kann nicht als DICOM-Segmentierung gelesen werden ({error}). Exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} cannot be read as a checkpoint ({error}): get the file again.</source>
        <translation>{file} kann nicht als Checkpoint gelesen werden ({error}): Besorgen Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} cannot be read as a checkpoint ({error}): it is truncated or was not written by torch.save.</source>
        <translation>{file} kann nicht als Checkpoint gelesen werden ({error}): Die Datei ist abgeschnitten oder nicht von torch.save geschrieben.</translation>
    </message>
    <message>
        <source>{file} cannot be read as a checkpoint ({length} bytes, {error}): it is truncated or was not written by nnU-Net v2.</source>
        <translation>{file} kann nicht als Checkpoint gelesen werden ({length} Bytes, {error}): Die Datei ist abgeschnitten oder nicht von nnU-Net v2 geschrieben.</translation>
    </message>
    <message>
        <source>{file} cannot be read as a checkpoint: it declares more bytes than it has.</source>
        <translation>{file} kann nicht als Checkpoint gelesen werden: Die Datei gibt mehr Bytes an, als sie hat.</translation>
    </message>
    <message>
        <source>{file} cannot be read as a checkpoint: it was not written by torch.save.</source>
        <translation>{file} kann nicht als Checkpoint gelesen werden: Die Datei wurde nicht von torch.save geschrieben.</translation>
    </message>
    <message>
        <source>{file} cannot be read as a checkpoint: its bytes were altered (checksum). Get it again.</source>
        <translation>{file} kann nicht als Checkpoint gelesen werden: Bytes wurden verändert (Prüfsumme). Besorgen Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} cannot be read as a structure set ({error}). Export it again.</source>
        <translation>{file} kann nicht als Strukturdatensatz gelesen werden ({error}). Exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} cannot be read, because its end is missing. Export it again.</source>
        <translation>{file} kann nicht gelesen werden, weil das Ende fehlt. Exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} cannot be read, because part of it is missing. Export it again.</source>
        <translation>{file} kann nicht gelesen werden, weil ein Teil fehlt. Exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} changed while it was read.</source>
        <translation>{file} wurde während des Lesens verändert.</translation>
    </message>
    <message>
        <source>{file} consists of more than {most_pieces} pieces. Compress it as a whole.</source>
        <translation>{file} besteht aus mehr als {most_pieces} Stücken. Komprimieren Sie die Datei als Ganzes.</translation>
    </message>
    <message>
        <source>{file} contains NumPy numbers, which torch {version} cannot read safely: update torch to 2.4 or later, or use the model as a bundle (made by `classscaleseg pack` on a computer with a newer torch).</source>
        <translation>{file} enthält NumPy-Zahlen, die torch {version} nicht sicher lesen kann: Aktualisieren Sie torch auf 2.4 oder neuer, oder verwenden Sie das Modell als Paket (mit `classscaleseg pack` auf einem Rechner mit neuerem torch erstellt).</translation>
    </message>
    <message>
        <source>{file} contains a {name}; a JSON object was expected.</source>
        <translation>{file} enthält {name}; erwartet wurde ein JSON-Objekt.</translation>
    </message>
    <message>
        <source>{file} contains more than weights and plain values ({error}). It could run code and was not opened.</source>
        <translation>{file} enthält mehr als Gewichte und einfache Werte ({error}). Die Datei könnte Code ausführen und wurde nicht geöffnet.</translation>
    </message>
    <message>
        <source>{file} contains more than weights and plain values{what}. It could run code and was not opened. If you trust its origin, read it there with torch.load(file, weights_only=False) and save only its entries {entries} again.</source>
        <translation>{file} enthält mehr als Gewichte und einfache Werte{what}. Die Datei könnte Code ausführen und wurde nicht geöffnet. Wenn Sie der Herkunft vertrauen, lesen Sie sie dort mit torch.load(file, weights_only=False) und speichern Sie nur die Einträge {entries} neu.</translation>
    </message>
    <message>
        <source>{file} declares {frames} frames and describes {each}. Export it again.</source>
        <translation>{file} gibt {frames} Frames an und beschreibt {each}. Exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} describes no network, not even as plans written before nnU-Net 2.5 do: no {missing}.</source>
        <translation>{file} beschreibt kein Netz, auch nicht wie Pläne aus der Zeit vor nnU-Net 2.5: {missing} fehlt.</translation>
    </message>
    <message>
        <source>{file} describes several segments with the number {twice} (SegmentNumber). Export it again.</source>
        <translation>{file} beschreibt mehrere Segmente mit der Nummer {twice} (SegmentNumber). Exportieren Sie sie erneut.</translation>
    </message>
    <message>
        <source>{file} does not belong to a ClassScaleSeg bundle (its 'format' is not {format}).</source>
        <translation>{file} gehört nicht zu einem Paket von ClassScaleSeg ('format' ist nicht {format}).</translation>
    </message>
    <message>
        <source>{file} does not exist. Name the file with the certificate of {address}.</source>
        <translation>{file} gibt es nicht. Nennen Sie die Datei mit dem Zertifikat von {address}.</translation>
    </message>
    <message>
        <source>{file} does not list {name}: the bundle is incomplete; get it again.</source>
        <translation>{file} nennt {name} nicht: Das Paket ist unvollständig; besorgen Sie es noch einmal.</translation>
    </message>
    <message>
        <source>{file} does not say how far apart its slices are (SpacingBetweenSlices).</source>
        <translation>{file} gibt den Abstand der Schichten nicht an (SpacingBetweenSlices).</translation>
    </message>
    <message>
        <source>{file} does not say of which segment its frame {frame} is. Export it again.</source>
        <translation>{file} gibt nicht an, zu welchem Segment der Frame {frame} gehört. Exportieren Sie sie erneut.</translation>
    </message>
    <message>
        <source>{file} has a direction matrix that is not a rotation: {direction}. Correct its header.</source>
        <translation>{file} hat eine Richtungsmatrix, die keine Drehung ist: {direction}. Berichtigen Sie den Header.</translation>
    </message>
    <message>
        <source>{file} has a name for the label value "{odd}". Label values are whole numbers from 0 to {max_value}; the name is left out.</source>
        <translation>{file} hat einen Namen für den Labelwert „{odd}“. Labelwerte sind ganze Zahlen von 0 bis {max_value}; der Name wird weggelassen.</translation>
    </message>
    <message>
        <source>{file} has a segment with the number 0, which is the background here. Export it with others.</source>
        <translation>{file} hat ein Segment mit der Nummer 0, die hier der Hintergrund ist. Exportieren Sie die Datei mit anderen.</translation>
    </message>
    <message>
        <source>{file} has a single slice without a thickness. Name the folder that holds all slices.</source>
        <translation>{file} hat eine einzige Schicht ohne Dicke. Geben Sie den Ordner an, der alle Schichten enthält.</translation>
    </message>
    <message>
        <source>{file} has another frame of reference (FrameOfReferenceUID) than {grid}: they are of different images, whose places cannot be compared.</source>
        <translation>{file} hat einen anderen Bezugsrahmen (FrameOfReferenceUID) als {grid}: Sie gehören zu verschiedenen Bildern, deren Orte nicht verglichen werden können.</translation>
    </message>
    <message>
        <source>{file} has changed while it was sent. Run this again.</source>
        <translation>{file} hat sich beim Senden geändert. Starten Sie noch einmal.</translation>
    </message>
    <message>
        <source>{file} has colours, and the model needs grey values. Export the original series.</source>
        <translation>{file} hat Farben, und das Modell braucht Grauwerte. Exportieren Sie die ursprüngliche Serie.</translation>
    </message>
    <message>
        <source>{file} has frames of a segment {number}, which it does not describe. Export it again.</source>
        <translation>{file} hat Frames eines Segments {number}, das nicht beschrieben ist. Exportieren Sie sie erneut.</translation>
    </message>
    <message>
        <source>{file} has frames without a place (ImagePositionPatient). Export it again.</source>
        <translation>{file} hat Frames ohne Ort (ImagePositionPatient). Exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} has more than {deepest} sequences in each other, so it is damaged. Export it again.</source>
        <translation>{file} hat mehr als {deepest} Sequenzen ineinander und ist also beschädigt. Exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} has more than {largest} MiB.</source>
        <translation>{file} hat mehr als {largest} MiB.</translation>
    </message>
    <message>
        <source>{file} has names of its labels that cannot be read ({error}). Its labels are called by their values.</source>
        <translation>{file} hat Namen für seine Labels, die nicht gelesen werden können ({error}). Die Labels werden nach ihren Werten benannt.</translation>
    </message>
    <message>
        <source>{file} has no 'config' and 'state_dict': it is not a model of Auto3DSeg.</source>
        <translation>{file} hat kein 'config' und 'state_dict': Das ist kein Modell von Auto3DSeg.</translation>
    </message>
    <message>
        <source>{file} has no 'labels'; of JSON files, the dataset.json of nnU-Net is a label table.</source>
        <translation>{file} hat kein 'labels'; von JSON-Dateien ist die dataset.json von nnU-Net eine Labeltabelle.</translation>
    </message>
    <message>
        <source>{file} has no 'modelTopology' and 'weightsManifest': it is not a model in TensorFlow.js's format for layers (layers-model).</source>
        <translation>{file} hat kein 'modelTopology' und 'weightsManifest': Das ist kein Modell im Schichtenformat von TensorFlow.js (layers-model).</translation>
    </message>
    <message>
        <source>{file} has no '{entry}': it is not a checkpoint of {program}.</source>
        <translation>{file} hat kein '{entry}': Das ist kein Checkpoint von {program}.</translation>
    </message>
    <message>
        <source>{file} has no configuration {name}, only {configurations}.</source>
        <translation>{file} hat keine Konfiguration {name}, nur {configurations}.</translation>
    </message>
    <message>
        <source>{file} has no convolution.</source>
        <translation>{file} hat keine Faltung.</translation>
    </message>
    <message>
        <source>{file} has no label. Each line of a colour table is one: {row}.</source>
        <translation>{file} hat kein Label. Jede Zeile einer Farbtabelle ist eines: {row}.</translation>
    </message>
    <message>
        <source>{file} has no object 'configurations': these are not plans of nnU-Net v2.</source>
        <translation>{file} hat kein Objekt 'configurations': Das sind keine Pläne von nnU-Net v2.</translation>
    </message>
    <message>
        <source>{file} has no object 'labels' such as {example}.</source>
        <translation>{file} hat kein Objekt 'labels' wie {example}.</translation>
    </message>
    <message>
        <source>{file} has no object {key}.</source>
        <translation>{file} hat kein Objekt {key}.</translation>
    </message>
    <message>
        <source>{file} has no segments.</source>
        <translation>{file} hat keine Segmente.</translation>
    </message>
    <message>
        <source>{file} has no version: the bundle is damaged; get it again.</source>
        <translation>{file} hat keine Version: Das Paket ist beschädigt; besorgen Sie es noch einmal.</translation>
    </message>
    <message>
        <source>{file} has no {keyword}, so it is no complete structure set. Export it again.</source>
        <translation>{file} hat keine {keyword} und ist also kein vollständiger Strukturdatensatz. Exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} has no {what}, to which a DICOM segmentation must refer. {other_format}</source>
        <translation>{file} hat keine Angabe {what}, auf die eine DICOM-Segmentierung verweisen muss. {other_format}</translation>
    </message>
    <message>
        <source>{file} has overlapping regions, but no 'regions_class_order' with the value of each.</source>
        <translation>{file} hat überlappende Regionen, aber keine 'regions_class_order' mit dem Wert jeder Region.</translation>
    </message>
    <message>
        <source>{file} has several frames at one place, so it is no single volume. Export one of them.</source>
        <translation>{file} hat mehrere Frames an einem Ort und ist daher kein einzelnes Volumen. Exportieren Sie eines davon.</translation>
    </message>
    <message>
        <source>{file} has several frames of its segment {number} at one place, so it is no single volume. Export one of them.</source>
        <translation>{file} hat mehrere Frames des Segments {number} am selben Ort und ist daher kein einzelnes Volumen. Exportieren Sie eines davon.</translation>
    </message>
    <message>
        <source>{file} has several names for the label value {twice}. The first one is taken.</source>
        <translation>{file} hat mehrere Namen für den Labelwert {twice}. Der erste gilt.</translation>
    </message>
    <message>
        <source>{file} has spacing {spacing} mm; every spacing must be positive. Correct its header.</source>
        <translation>{file} hat den Voxelabstand {spacing} mm; jeder Abstand muss positiv sein. Berichtigen Sie den Header.</translation>
    </message>
    <message>
        <source>{file} has spacing {spacing} mm; from {least} to {most} mm are possible. Correct its header, or the unit there.</source>
        <translation>{file} hat den Voxelabstand {spacing} mm; möglich sind {least} bis {most} mm. Berichtigen Sie den Header oder die Einheit darin.</translation>
    </message>
    <message>
        <source>{file} has structures of {frames} frames of reference (FrameOfReferenceUID), and {grid} does not say which is its own. Name the DICOM series on which they were drawn.</source>
        <translation>{file} hat Strukturen von {frames} Bezugsrahmen (FrameOfReferenceUID), und {grid} sagt nicht, welcher der eigene ist. Nennen Sie die DICOM-Serie, auf der sie gezeichnet wurden.</translation>
    </message>
    <message>
        <source>{file} has structures of {frames} frames of reference (FrameOfReferenceUID), and {name} was not loaded from Slicer's DICOM database, which would say which is its own. Load it from there.</source>
        <translation>{file} hat Strukturen aus {frames} Bezugssystemen (FrameOfReferenceUID), und {name} wurde nicht aus Slicers DICOM-Datenbank geladen, die sagen würde, welches das richtige ist. Laden Sie den Bilddatensatz von dort.</translation>
    </message>
    <message>
        <source>{file} has the label {foreign}, which the network does not give; it gives {given}.</source>
        <translation>{file} hat das Label {foreign}, das das Netz nicht liefert; es liefert {given}.</translation>
    </message>
    <message>
        <source>{file} has the origin {origin} mm; up to {farthest} mm are possible. Correct its header.</source>
        <translation>{file} hat den Ursprung {origin} mm; möglich sind bis zu {farthest} mm. Berichtigen Sie den Header.</translation>
    </message>
    <message>
        <source>{file} has values that are not finite: it is damaged; get it again.</source>
        <translation>{file} hat Werte, die nicht endlich sind: Die Datei ist beschädigt; besorgen Sie sie noch einmal.</translation>
    </message>
    <message>
        <source>{file} has version {version}; this ClassScaleSeg reads version {version2}.</source>
        <translation>{file} hat die Version {version}; dieses ClassScaleSeg liest die Version {version2}.</translation>
    </message>
    <message>
        <source>{file} has {components} values in each voxel and does not say which segments these are; one label is needed.</source>
        <translation>{file} hat {components} Werte in jedem Voxel und sagt nicht, welche Segmente das sind; ein Label ist nötig.</translation>
    </message>
    <message>
        <source>{file} has {components} values in each voxel, as a colour image has, and does not say which segments these are. Export the label map, not a picture of it.</source>
        <translation>{file} hat {components} Werte in jedem Voxel, wie ein Farbbild, und sagt nicht, welche Segmente das sind. Exportieren Sie das Labelbild, nicht seine Abbildung.</translation>
    </message>
    <message>
        <source>{file} has {contours} contours and more, too many for the free memory.</source>
        <translation>{file} hat {contours} Konturen und mehr, zu viele für den freien Speicher.</translation>
    </message>
    <message>
        <source>{file} has {count} entries in {key}; the network has {classes} classes.</source>
        <translation>{file} hat {count} Einträge in {key}; das Netz hat {classes} Klassen.</translation>
    </message>
    <message>
        <source>{file} has {count} labels from {least} to {largest}</source>
        <translation>{file} hat {count} Labels von {least} bis {largest}</translation>
    </message>
    <message>
        <source>{file} has {fault}; the model's labels are {wanted} to {wanted2}.</source>
        <translation>{file} hat {fault}; die Labels des Modells sind {wanted} bis {wanted2}.</translation>
    </message>
    <message>
        <source>{file} has {few} pixels than its header says: {held} bytes, not {declared}. Export it again.</source>
        <translation>{file} hat {few} Pixel, als der Header sagt: {held} Bytes, nicht {declared}. Exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} has {file_size} bytes besides its weights. It was not opened.</source>
        <translation>{file} hat außer den Gewichten {file_size} Bytes. Die Datei wurde nicht geöffnet.</translation>
    </message>
    <message>
        <source>{file} has {files} objects with many frames. Name one of them: {name}.</source>
        <translation>{file} hat {files} Objekte mit vielen Frames. Geben Sie eines davon an: {name}.</translation>
    </message>
    <message>
        <source>{file} has {labels} bytes; at most {max_json} are read.</source>
        <translation>{file} hat {labels} Bytes; höchstens {max_json} werden gelesen.</translation>
    </message>
    <message>
        <source>{file} has {layers} layers; 2 to {max_layers} were expected.</source>
        <translation>{file} hat {layers} Schichten; erwartet wurden 2 bis {max_layers}.</translation>
    </message>
    <message>
        <source>{file} has {name} bytes; at most {max_json} are read.</source>
        <translation>{file} hat {name} Bytes; höchstens {max_json} werden gelesen.</translation>
    </message>
    <message>
        <source>{file} has {size} bytes, more than half of the free memory ({free} GiB).</source>
        <translation>{file} hat {size} Bytes, mehr als die Hälfte des freien Speichers ({free} GiB).</translation>
    </message>
    <message>
        <source>{file} has {st_size} bytes, which are compressed and become more than half of the free memory ({limit} GiB). Close other programs, or export it without compression.</source>
        <translation>{file} hat {st_size} Bytes, die komprimiert sind und mehr als die Hälfte des freien Speichers einnehmen würden ({limit} GiB). Schließen Sie andere Programme oder exportieren Sie die Datei ohne Kompression.</translation>
    </message>
    <message>
        <source>{file} has {text} in the place of a whole number ({keyword}). Export it again.</source>
        <translation>{file} hat {text} an der Stelle einer ganzen Zahl ({keyword}). Exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} has {times} structures with the number {number} (ROINumber), so it is not clear whose the contours are. Export it again.</source>
        <translation>{file} hat {times} Strukturen mit der Nummer {number} (ROINumber); es ist also nicht klar, zu welcher die Konturen gehören. Exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} has {what}; left out: {count}.</source>
        <translation>{file} hat {what}; ausgelassen: {count}.</translation>
    </message>
    <message>
        <source>{file} is a DICOM file without an image. Name the folder of the series.</source>
        <translation>{file} ist eine DICOM-Datei ohne Bild. Geben Sie den Ordner der Serie an.</translation>
    </message>
    <message>
        <source>{file} is a TorchScript program, not a checkpoint. It could run code and was not opened.</source>
        <translation>{file} ist ein TorchScript-Programm, kein Checkpoint. Die Datei könnte Code ausführen und wurde nicht geöffnet.</translation>
    </message>
    <message>
        <source>{file} is a link whose target is missing. Fetch the files of the series first.</source>
        <translation>{file} ist ein Link, dessen Ziel fehlt. Holen Sie zuerst die Dateien der Serie.</translation>
    </message>
    <message>
        <source>{file} is a mosaic: one picture with all slices of a volume. Convert it to NIfTI, as by dcm2niix.</source>
        <translation>{file} ist ein Mosaik: ein Bild mit allen Schichten eines Volumens. Wandeln Sie es in NIfTI um, etwa mit dcm2niix.</translation>
    </message>
    <message>
        <source>{file} is a segmentation of the kind {kind}; LABELMAP or BINARY is needed.</source>
        <translation>{file} ist eine Segmentierung der Art {kind}; gebraucht wird LABELMAP oder BINARY.</translation>
    </message>
    <message>
        <source>{file} is a tar file, not a checkpoint of nnU-Net v2. It was not opened.</source>
        <translation>{file} ist eine Tar-Datei, kein Checkpoint von nnU-Net v2. Sie wurde nicht geöffnet.</translation>
    </message>
    <message>
        <source>{file} is compressed in spite of its name. Rename it to .nii.gz.</source>
        <translation>{file} ist trotz des Namens komprimiert. Benennen Sie die Datei in .nii.gz um.</translation>
    </message>
    <message>
        <source>{file} is damaged ({error}). Copy or export it again.</source>
        <translation>{file} ist beschädigt ({error}). Kopieren oder exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} is damaged ({error}). Delete it.</source>
        <translation>{file} ist beschädigt ({error}). Löschen Sie die Datei.</translation>
    </message>
    <message>
        <source>{file} is damaged ({error}): get the file again.</source>
        <translation>{file} ist beschädigt ({error}): Besorgen Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} is damaged or gone ({error}), so it was not sent. Export it again.</source>
        <translation>{file} ist beschädigt oder fort ({error}) und wurde deshalb nicht gesendet. Exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} is damaged: a sequence has something else than items. Export it again.</source>
        <translation>{file} ist beschädigt: Eine Sequenz hat etwas anderes als Items. Exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} is damaged: it has the element {tag} twice in one place. Export it again.</source>
        <translation>{file} ist beschädigt: Das Element {tag} kommt an einer Stelle zweimal vor. Exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} is damaged: it has zeros in the place of an element. Export it again.</source>
        <translation>{file} ist beschädigt: An der Stelle eines Elements stehen Nullen. Exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} is empty</source>
        <translation>{file} ist leer</translation>
    </message>
    <message>
        <source>{file} is in Explicit VR Big Endian, which DICOM has retired. Export it in Little Endian.</source>
        <translation>{file} ist in Explicit VR Big Endian, das DICOM abgeschafft hat. Exportieren Sie die Datei in Little Endian.</translation>
    </message>
    <message>
        <source>{file} is missing.</source>
        <translation>{file} fehlt.</translation>
    </message>
    <message>
        <source>{file} is nested more than {max_depth} levels deep. It was not read.</source>
        <translation>{file} ist mehr als {max_depth} Ebenen tief verschachtelt und wurde nicht gelesen.</translation>
    </message>
    <message>
        <source>{file} is no NRRD file. Segment the image again, or take it out of the folder.</source>
        <translation>{file} ist keine NRRD-Datei. Segmentieren Sie das Bild neu, oder nehmen Sie sie aus dem Ordner.</translation>
    </message>
    <message>
        <source>{file} is no RT Structure Set.</source>
        <translation>{file} ist kein RT-Strukturdatensatz.</translation>
    </message>
    <message>
        <source>{file} is not a CSV file in UTF-8 ({error}).</source>
        <translation>{file} ist keine CSV-Datei in UTF-8 ({error}).</translation>
    </message>
    <message>
        <source>{file} is not a catalogue: a number 'version' and a list 'models' of at most {max_models} were expected.</source>
        <translation>{file} ist kein Katalog: Erwartet wurden eine Zahl 'version' und eine Liste 'models' von höchstens {max_models}.</translation>
    </message>
    <message>
        <source>{file} is not a certificate in PEM ({error}). Ask the person who runs {address} for its file.</source>
        <translation>{file} ist kein Zertifikat im Format PEM ({error}). Bitten Sie die Person, die {address} betreibt, um dessen Datei.</translation>
    </message>
    <message>
        <source>{file} is not a file of certificates in PEM that can be read ({error}). Correct the environment variable REQUESTS_CA_BUNDLE.</source>
        <translation>{file} ist keine lesbare Datei mit Zertifikaten in PEM ({error}). Wählen Sie in der Zeile „Zertifikat“ eine andere Datei.</translation>
    </message>
    <message>
        <source>{file} is not a file.</source>
        <translation>{file} ist keine Datei.</translation>
    </message>
    <message>
        <source>{file} is not a label table ({error}).</source>
        <translation>{file} ist keine Label-Tabelle ({error}).</translation>
    </message>
    <message>
        <source>{file} is not a label table ({rstrip}).</source>
        <translation>{file} ist keine Label-Tabelle ({rstrip}).</translation>
    </message>
    <message>
        <source>{file} is not a name in UTF-8, which ITK needs. Rename the file or its folder.</source>
        <translation>{file} ist kein Name in UTF-8, den ITK braucht. Benennen Sie die Datei oder ihren Ordner um.</translation>
    </message>
    <message>
        <source>{file} is not a safetensors file (its header would have {size} bytes).</source>
        <translation>{file} ist keine safetensors-Datei (der Header hätte {size} Bytes).</translation>
    </message>
    <message>
        <source>{file} is not a safetensors file ({error}).</source>
        <translation>{file} ist keine safetensors-Datei ({error}).</translation>
    </message>
    <message>
        <source>{file} is not a safetensors file ({tensor} has no shape).</source>
        <translation>{file} ist keine safetensors-Datei ({tensor} hat keine Form).</translation>
    </message>
    <message>
        <source>{file} is not a safetensors file of a network: its header has more than {max_header} bytes.</source>
        <translation>{file} ist keine safetensors-Datei eines Netzes: Ihr Header hat mehr als {max_header} Bytes.</translation>
    </message>
    <message>
        <source>{file} is not a whole model, and there is no plans.json in the folders above: give the folder that contains plans.json, dataset.json and fold_0, an exported zip or a bundle.</source>
        <translation>{file} ist kein ganzes Modell, und in den Ordnern darüber ist keine plans.json: Geben Sie den Ordner an, der plans.json, dataset.json und fold_0 enthält, eine exportierte Zip-Datei oder ein Paket.</translation>
    </message>
    <message>
        <source>{file} is not the confidence of {output}, or is damaged. Segment {name} again (--overwrite).</source>
        <translation>{file} ist nicht die Konfidenz von {output} oder ist beschädigt. Segmentieren Sie {name} noch einmal (--overwrite).</translation>
    </message>
    <message>
        <source>{file} is not valid JSON ({error}).</source>
        <translation>{file} ist kein gültiges JSON ({error}).</translation>
    </message>
    <message>
        <source>{file} is of another case, {name}.</source>
        <translation>{file} ist von einem anderen Fall, {name}.</translation>
    </message>
    <message>
        <source>{file} is on another grid than {name}</source>
        <translation>{file} hat ein anderes Gitter als {name}</translation>
    </message>
    <message>
        <source>{file} is one file of a model: name the folder above: {model}</source>
        <translation>{file} ist eine Datei eines Modells: Geben Sie den Ordner darüber an: {model}</translation>
    </message>
    <message>
        <source>{file} is one slice of a DICOM series. {remedy}</source>
        <translation>{file} ist eine Schicht einer DICOM-Serie. {remedy}</translation>
    </message>
    <message>
        <source>{file} is read as {reader} does, as in the training of this model.</source>
        <translation>{file} wird wie von {reader} gelesen, wie beim Training dieses Modells.</translation>
    </message>
    <message>
        <source>{file} is read as {reader} does.</source>
        <translation>{file} wird wie von {reader} gelesen.</translation>
    </message>
    <message>
        <source>{file} is shorter than the zip declares: get the file again.</source>
        <translation>{file} ist kürzer, als die Zip-Datei angibt: Besorgen Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} is taken to have no slices between.</source>
        <translation>{file} hat dazwischen vermutlich keine Schichten.</translation>
    </message>
    <message>
        <source>{file} is too large: to send it takes {need} GiB of memory, and {free} GiB are free. Close other programs.</source>
        <translation>{file} ist zu groß: Das Senden braucht {need} GiB Speicher, und {free} GiB sind frei. Schließen Sie andere Programme.</translation>
    </message>
    <message>
        <source>{file} is truncated: its compressed data have no end. Copy or export it again.</source>
        <translation>{file} ist abgeschnitten: Die komprimierten Daten haben kein Ende. Kopieren oder exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} is truncated: its header declares {dimensions} voxels in {size} bytes, the file has {found}. Copy or export it again.</source>
        <translation>{file} ist abgeschnitten: Der Header gibt {dimensions} Voxel in {size} Bytes an, die Datei hat {found}. Kopieren oder exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} lists more members than any model has. It was not opened.</source>
        <translation>{file} führt mehr Bestandteile auf, als irgendein Modell hat. Die Datei wurde nicht geöffnet.</translation>
    </message>
    <message>
        <source>{file} lists more than {max_value} structures, so it is damaged. Export it again.</source>
        <translation>{file} führt mehr als {max_value} Strukturen auf und ist also beschädigt. Exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{file} lists no layers: 'model_config' must have a 'config' with 'layers'.</source>
        <translation>{file} nennt keine Schichten: 'model_config' muss ein 'config' mit 'layers' haben.</translation>
    </message>
    <message>
        <source>{file} made no progress in the stage {stage} for {patience}, and was ended.</source>
        <translation>{file} kam im Abschnitt {stage} nicht mehr voran ({patience} lang) und wurde beendet.</translation>
    </message>
    <message>
        <source>{file} must be a JSON object.</source>
        <translation>{file} muss ein JSON-Objekt sein.</translation>
    </message>
    <message>
        <source>{file} names no input channels: 'channel_names' must be an object such as {written}.</source>
        <translation>{file} nennt keine Eingangskanäle: 'channel_names' muss ein Objekt wie {written} sein.</translation>
    </message>
    <message>
        <source>{file} names other classes than the server has described</source>
        <translation>{file} nennt andere Klassen, als der Server beschrieben hat</translation>
    </message>
    <message>
        <source>{file} resamples logits with {name} and {resampling_fn_probabilities_kwargs}; only nnU-Net's linear resampling (order 1, its default) is supported. Use nnUNetv2_predict for this model.</source>
        <translation>{file} bringt Logits mit {name} und {resampling_fn_probabilities_kwargs} auf das Gitter; nur die lineare Interpolation von nnU-Net (Ordnung 1, die Vorgabe) wird unterstützt. Verwenden Sie für dieses Modell nnUNetv2_predict.</translation>
    </message>
    <message>
        <source>{file} stores its values by a lookup table (Modality LUT), which cannot be read. Convert it.</source>
        <translation>{file} speichert Werte über eine Tabelle (Modality LUT), die nicht gelesen werden kann. Wandeln Sie die Datei um.</translation>
    </message>
    <message>
        <source>{file} takes the token.</source>
        <translation>{file} nimmt das Token an.</translation>
    </message>
    <message>
        <source>{file} was changed while the report was written. Write it again.</source>
        <translation>{file} wurde geändert, während der Bericht geschrieben wurde. Schreiben Sie ihn noch einmal.</translation>
    </message>
    <message>
        <source>{file} was made by a newer ClassScaleSeg (bundle version {version}, this one reads {version2}): update ClassScaleSeg.</source>
        <translation>{file} stammt von einem neueren ClassScaleSeg (Paketversion {version}, dieses liest {version2}): Aktualisieren Sie ClassScaleSeg.</translation>
    </message>
    <message>
        <source>{file} was made by a newer ClassScaleSeg (catalogue version {version}, this one reads {version2}). Update ClassScaleSeg.</source>
        <translation>{file} stammt von einem neueren ClassScaleSeg (Katalogversion {version}, dieses liest {version2}). Aktualisieren Sie ClassScaleSeg.</translation>
    </message>
    <message>
        <source>{file} was not written by a report. Name another folder, or remove the file.</source>
        <translation>{file} ist nicht von einem Bericht. Geben Sie einen anderen Ordner an oder entfernen Sie die Datei.</translation>
    </message>
    <message>
        <source>{file} was not written: a sheet has {most_rows} rows, and there are {listed}. Write .csv.</source>
        <translation>{file} wurde nicht geschrieben: Ein Tabellenblatt hat {most_rows} Zeilen, und es sind {listed}. Schreiben Sie .csv.</translation>
    </message>
    <message>
        <source>{file} was saved with another pickle protocol than 2, torch's default. Save it again without that option.</source>
        <translation>{file} wurde mit einem anderen Pickle-Protokoll als 2 gespeichert, der Vorgabe von torch. Speichern Sie die Datei ohne diese Option noch einmal.</translation>
    </message>
    <message>
        <source>{file} would replace another result. Choose another name.</source>
        <translation>{file} würde ein anderes Ergebnis ersetzen. Wählen Sie einen anderen Namen.</translation>
    </message>
    <message>
        <source>{file} would take for ever to read: {why}. It was not opened.</source>
        <translation>{file} zu lesen würde kein Ende nehmen: {why}. Die Datei wurde nicht geöffnet.</translation>
    </message>
    <message>
        <source>{file} would unpack to {file_size} bytes, too many for its size. It was not opened.</source>
        <translation>{file} ergäbe entpackt {file_size} Bytes, zu viele für die Größe. Die Datei wurde nicht geöffnet.</translation>
    </message>
    <message>
        <source>{file} {fault}. Run this again.</source>
        <translation>{file} {fault}. Starten Sie noch einmal.</translation>
    </message>
    <message>
        <source>{file}, line {line_num}: this is not valid CSV ({error}).</source>
        <translation>{file}, Zeile {line_num}: Das ist kein gültiges CSV ({error}).</translation>
    </message>
    <message>
        <source>{file}, line {line}: this is not UTF-8 text. Save it in UTF-8.</source>
        <translation>{file}, Zeile {line}: Das ist kein Text in UTF-8. Speichern Sie die Datei in UTF-8.</translation>
    </message>
    <message>
        <source>{file}, line {number}: label value {value} was used before, by {name}.</source>
        <translation>{file}, Zeile {number}: Der Labelwert {value} kam schon vor, bei {name}.</translation>
    </message>
    <message>
        <source>{folder} cannot be read ({error}). Connect its drive, or correct its permissions.</source>
        <translation>{folder} kann nicht gelesen werden ({error}). Verbinden Sie das Laufwerk, oder berichtigen Sie die Zugriffsrechte.</translation>
    </message>
    <message>
        <source>{folder} cannot be read ({strerror}). Choose another folder.</source>
        <translation>{folder} kann nicht gelesen werden ({strerror}). Wählen Sie einen anderen Ordner.</translation>
    </message>
    <message>
        <source>{folder} has no DICOM series. {folder2}</source>
        <translation>{folder} hat keine DICOM-Serie. {folder2}</translation>
    </message>
    <message>
        <source>{folder} has no case, so there is no report to write.</source>
        <translation>{folder} enthält keinen Fall, daher gibt es keinen Bericht zu schreiben.</translation>
    </message>
    <message>
        <source>{folder} has no segmentation: none of its files ends with {suffixes}, or is in DICOM.</source>
        <translation>{folder} hat keine Segmentierung: Keine der Dateien endet mit {suffixes} oder ist in DICOM.</translation>
    </message>
    <message>
        <source>{folder} has no volume to segment, only {found}. {folder2}</source>
        <translation>{folder} hat kein Volumen, das segmentiert werden kann, nur {found}. {folder2}</translation>
    </message>
    <message>
        <source>{folder} has other files than when {value} was loaded from it, and a DICOM segmentation would get the patient of these. Load the series again and segment it, or save .seg.nrrd.</source>
        <translation>{folder} hat andere Dateien als beim Laden von {value}, und eine DICOM-Segmentierung bekäme deren Patienten. Laden Sie die Serie noch einmal und segmentieren Sie sie, oder speichern Sie .seg.nrrd.</translation>
    </message>
    <message>
        <source>{folder} has the case {name} of this volume. Replace it (replace=True), or choose another folder.</source>
        <translation>{folder} enthält schon den Fall {name} dieses Bilddatensatzes. Ersetzen Sie ihn (replace=True), oder wählen Sie einen anderen Ordner.</translation>
    </message>
    <message>
        <source>{folder} has {series} DICOM series: {found}. Name a folder with one of them: classscaleseg dicom sort makes a folder of each.</source>
        <translation>{folder} hat {series} DICOM-Serien: {found}. Nennen Sie einen Ordner mit einer davon: classscaleseg dicom sort macht aus jeder einen Ordner.</translation>
    </message>
    <message>
        <source>{folder} is a folder and {file} is a file: give two files, or two folders.</source>
        <translation>{folder} ist ein Ordner und {file} eine Datei: Geben Sie zwei Dateien oder zwei Ordner an.</translation>
    </message>
    <message>
        <source>{folder} is no folder. Choose the folder of the images, and that of the segmentations.</source>
        <translation>{folder} ist kein Ordner. Wählen Sie den Ordner der Bilder und den der Segmentierungen.</translation>
    </message>
    <message>
        <source>{folder} is no folder: of many cases, name the folder of their images.</source>
        <translation>{folder} ist kein Ordner: Nennen Sie für viele Fälle den Ordner ihrer Bilder.</translation>
    </message>
    <message>
        <source>{folder} is not a temporary folder of ClassScaleSeg, and would be removed at the end. Name another folder.</source>
        <translation>{folder} ist kein temporärer Ordner von ClassScaleSeg und würde am Ende gelöscht. Geben Sie einen anderen Ordner an.</translation>
    </message>
    <message>
        <source>{folder}, from which {value} was loaded, is gone, and a DICOM segmentation refers to its files. Put them there again, or save .seg.nrrd.</source>
        <translation>{folder}, woraus {value} geladen wurde, ist fort, und eine DICOM-Segmentierung verweist auf die Dateien darin. Legen Sie sie wieder dorthin, oder speichern Sie .seg.nrrd.</translation>
    </message>
    <message>
        <source>{folder}: less than {disk_reserve} GiB is free on the disk. Make room there, or choose another folder. What is there already is not fetched again.</source>
        <translation>{folder}: Auf der Festplatte sind weniger als {disk_reserve} GiB frei. Schaffen Sie dort Platz, oder wählen Sie einen anderen Ordner. Was schon da ist, wird nicht noch einmal geholt.</translation>
    </message>
    <message>
        <source>{found}. At the model's spacing, {target} mm, this is a grid of {grid} voxels: nothing is left to segment. Is the unit right? A header in metres or micrometres must be changed to millimetres.</source>
        <translation>{found}. Beim Voxelabstand des Modells, {target} mm, ist das ein Gitter von {grid} Voxeln: Nichts bleibt zu segmentieren. Stimmt die Einheit? Ein Header in Metern oder Mikrometern muss auf Millimeter geändert werden.</translation>
    </message>
    <message>
        <source>{given} is not text in UTF-8, as the list of models is. Rename the model.</source>
        <translation>{given} ist kein Text in UTF-8 wie die Liste der Modelle. Benennen Sie das Modell um.</translation>
    </message>
    <message>
        <source>{here} of {expected} images are there.</source>
        <translation>{here} von {expected} Bildern sind da.</translation>
    </message>
    <message>
        <source>{host_bytes} GB of RAM</source>
        <translation>{host_bytes} GB RAM</translation>
    </message>
    <message>
        <source>{id} consists of {summaries} models; give a single one to locate.</source>
        <translation>{id} besteht aus {summaries} Modellen; geben Sie zum Finden ein einzelnes an.</translation>
    </message>
    <message>
        <source>{id}: 'locate_with' must name another model, which has one part.</source>
        <translation>{id}: 'locate_with' muss ein anderes Modell nennen, das aus einem Teil besteht.</translation>
    </message>
    <message>
        <source>{id}: {id2} has no structure {odd} to locate.</source>
        <translation>{id}: {id2} hat keine Struktur {odd}, deren Lage gesucht werden könnte.</translation>
    </message>
    <message>
        <source>{images} has no image of a segmentation in {segmentations}, such as {alone}.nii.gz.</source>
        <translation>{images} hat kein Bild zu einer Segmentierung in {segmentations}, etwa {alone}.nii.gz.</translation>
    </message>
    <message>
        <source>{images} has no image of {alone}.</source>
        <translation>{images} hat kein Bild von {alone}.</translation>
    </message>
    <message>
        <source>{images} has several images of {unclear}. Leave one of each there.</source>
        <translation>{images} hat mehrere Bilder von {unclear}. Lassen Sie von jedem eins dort.</translation>
    </message>
    <message>
        <source>{images} of {expected} images came.</source>
        <translation>{images} von {expected} Bildern kamen an.</translation>
    </message>
    <message>
        <source>{kept} results of this token are kept already. Fetch and remove some first.</source>
        <translation>{kept} Ergebnisse dieses Tokens werden schon aufbewahrt. Holen und entfernen Sie erst einige.</translation>
    </message>
    <message>
        <source>{keyword} must be {count} number(s), not {texts}. Export it again.</source>
        <translation>{keyword} muss aus {count} Zahlen bestehen, nicht aus {texts}. Exportieren Sie die Datei noch einmal.</translation>
    </message>
    <message>
        <source>{key} cannot be {key2}; schema.json says what is allowed.</source>
        <translation>{key} kann nicht {key2} sein; schema.json sagt, was erlaubt ist.</translation>
    </message>
    <message>
        <source>{key} is {value}, but dataset.json names {channels} channel(s).</source>
        <translation>{key} ist {value}, aber dataset.json nennt {channels} Kanäle.</translation>
    </message>
    <message>
        <source>{key} is {value}; a whole number from 1 to {most} was expected.</source>
        <translation>{key} ist {value}; erwartet wurde eine ganze Zahl von 1 bis {most}.</translation>
    </message>
    <message>
        <source>{key} is {value}; a whole number from {least} to {most} was expected.</source>
        <translation>{key} ist {value}; erwartet wurde eine ganze Zahl von {least} bis {most}.</translation>
    </message>
    <message>
        <source>{key} is {value}; {count} numbers were expected.</source>
        <translation>{key} ist {value}; erwartet wurden {count} Zahlen.</translation>
    </message>
    <message>
        <source>{key} lacks channel {channel}.</source>
        <translation>{key} hat keinen Kanal {channel}.</translation>
    </message>
    <message>
        <source>{key} of its network is {count}; a whole number from 1 to {most} was expected.</source>
        <translation>{key} des Netzes ist {count}; erwartet wurde eine ganze Zahl von 1 bis {most}.</translation>
    </message>
    <message>
        <source>{key} {key2} must be a number from 0 to below 1.</source>
        <translation>{key} {key2} muss eine Zahl von 0 bis unter 1 sein.</translation>
    </message>
    <message>
        <source>{key} {key2} must be true or false.</source>
        <translation>{key} {key2} muss true oder false sein.</translation>
    </message>
    <message>
        <source>{key} {name} is not part of the installed nnunetv2: update it, or use a model made with nnU-Net's own classes.</source>
        <translation>{key} {name} gehört nicht zum installierten nnunetv2: Aktualisieren Sie es, oder verwenden Sie ein Modell mit nnU-Nets eigenen Klassen.</translation>
    </message>
    <message>
        <source>{key} {value} has an option that is no such number: {option}.</source>
        <translation>{key} {value} hat eine Option, die keine solche Zahl ist: {option}.</translation>
    </message>
    <message>
        <source>{key} {value} has an option that is not known: {option}.</source>
        <translation>{key} {value} hat eine unbekannte Option: {option}.</translation>
    </message>
    <message>
        <source>{key} {value} is not one of {known} of {home}.</source>
        <translation>{key} {value} ist keines von {known} aus {home}.</translation>
    </message>
    <message>
        <source>{key} {value} is not one of {known}, with or without options.</source>
        <translation>{key} {value} ist keines von {known}, mit oder ohne Optionen.</translation>
    </message>
    <message>
        <source>{key} {value} must be a list of whole numbers.</source>
        <translation>{key} {value} muss eine Liste ganzer Zahlen sein.</translation>
    </message>
    <message>
        <source>{key} {value} must be an object whose values are numbers, true or false.</source>
        <translation>{key} {value} muss ein Objekt sein, dessen Werte Zahlen, true oder false sind.</translation>
    </message>
    <message>
        <source>{key} {value} must be true or false.</source>
        <translation>{key} {value} muss true oder false sein.</translation>
    </message>
    <message>
        <source>{key} {value} must be whole numbers from 1 to {largest}.</source>
        <translation>{key} {value} muss aus ganzen Zahlen von 1 bis {largest} bestehen.</translation>
    </message>
    <message>
        <source>{key} {value} must be {count} whole numbers: a token has 8 x 8 x 8 voxels.</source>
        <translation>{key} {value} muss aus {count} ganzen Zahlen bestehen: Ein Token hat 8 x 8 x 8 Voxel.</translation>
    </message>
    <message>
        <source>{key} {value} must give {dimension} sizes for each of {stages} stages.</source>
        <translation>{key} {value} muss für jede der {stages} Stufen {dimension} Größen haben.</translation>
    </message>
    <message>
        <source>{key} {value} must not have a negative eps.</source>
        <translation>{key} {value} darf kein negatives eps haben.</translation>
    </message>
    <message>
        <source>{key}_kwargs {options} are not options of {key2}.</source>
        <translation>{key}_kwargs {options} sind keine Optionen von {key2}.</translation>
    </message>
    <message>
        <source>{kind} is no kind of DICOM segmentation. Choose {kinds}.</source>
        <translation>{kind} ist keine Art von DICOM-Segmentierung. Wählen Sie {kinds}.</translation>
    </message>
    <message>
        <source>{known} and {file} differ, but have the same identifier (SOPInstanceUID), of which an archive keeps one. Leave one of them out.</source>
        <translation>{known} und {file} unterscheiden sich, haben aber denselben Bezeichner (SOPInstanceUID), von dem ein Archiv nur eine behält. Lassen Sie eine davon weg.</translation>
    </message>
    <message>
        <source>{label_image} is a structure set, which has contours and no voxels. Give another format; the command classscaleseg compare reads structure sets.</source>
        <translation>{label_image} ist ein Strukturdatensatz, der Konturen und keine Voxel hat. Geben Sie ein anderes Format an; der Befehl classscaleseg compare liest Strukturdatensätze.</translation>
    </message>
    <message>
        <source>{labels} is missing: a model of Auto3DSeg needs the names of its classes beside {model}.</source>
        <translation>{labels} fehlt: Ein Modell von Auto3DSeg braucht neben {model} die Namen seiner Klassen.</translation>
    </message>
    <message>
        <source>{localizers} left out: the header calls it a localizer.</source>
        <translation>{localizers} weggelassen: Laut Header ein Localizer.</translation>
    </message>
    <message>
        <source>{model} is not the id of a model.</source>
        <translation>{model} ist nicht die Kennung eines Modells.</translation>
    </message>
    <message>
        <source>{named} regions are named, but {order} are predicted.</source>
        <translation>{named} Regionen sind benannt, aber {order} werden vorhergesagt.</translation>
    </message>
    <message>
        <source>{names} and {slices} more</source>
        <translation>{names} und {slices} weitere</translation>
    </message>
    <message>
        <source>{names} is on another grid than {names2}. Do they belong together?</source>
        <translation>{names} liegt auf einem anderen Gitter als {names2}. Gehören sie zusammen?</translation>
    </message>
    <message>
        <source>{name} (label {value}) does not have exactly one counterpart on the other side.</source>
        <translation>{name} (Label {value}) hat nicht genau ein Gegenstück auf der anderen Seite.</translation>
    </message>
    <message>
        <source>{name} and {name2} are at the same place: there are several volumes.{hint} Move the slices of one volume to a separate folder.</source>
        <translation>{name} und {name2} liegen am selben Ort: Es sind mehrere Volumen.{hint} Verschieben Sie die Schichten eines Volumens in einen eigenen Ordner.</translation>
    </message>
    <message>
        <source>{name} cannot be read ({strerror}).</source>
        <translation>{name} kann nicht gelesen werden ({strerror}).</translation>
    </message>
    <message>
        <source>{name} cannot be the name of a server. Use up to 64 letters, digits, spaces and . ( ) + - _.</source>
        <translation>{name} kann nicht der Name eines Servers sein. Nehmen Sie bis zu 64 Buchstaben, Ziffern, Leerzeichen und . ( ) + - _.</translation>
    </message>
    <message>
        <source>{name} cannot tell where to look. {error} With locate_classes (--locate-classes) name the classes of {name2} that enclose what you look for.</source>
        <translation>{name} kann nicht sagen, wo zu suchen ist. {error} Nennen Sie mit locate_classes (--locate-classes) die Klassen von {name2}, die das Gesuchte umschließen.</translation>
    </message>
    <message>
        <source>{name} consists of {paths} models. Open them one by one: {listed}.</source>
        <translation>{name} besteht aus {paths} Modellen. Öffnen Sie sie einzeln: {listed}.</translation>
    </message>
    <message>
        <source>{name} contains fewer numbers than its shape {shape} requires.</source>
        <translation>{name} enthält weniger Zahlen, als die Form {shape} verlangt.</translation>
    </message>
    <message>
        <source>{name} could not be segmented ({fault}). See Slicer's error log.</source>
        <translation>{name} konnte nicht segmentiert werden ({fault}). Siehe das Fehlerprotokoll von Slicer.</translation>
    </message>
    <message>
        <source>{name} does not consist of label maps, which alone can be painted. In the module Segmentations, make {labelmap} its source representation.</source>
        <translation>{name} besteht nicht aus Label-Maps, und nur in diesen kann gezeichnet werden. Machen Sie im Modul Segmentations {labelmap} zur Quelldarstellung.</translation>
    </message>
    <message>
        <source>{name} does not have the classes {classes}, which tell {name2} where to look. Name others (--locate-with, --locate-classes), or let it see the whole image (--locate-with none).</source>
        <translation>{name} hat die Klassen {classes} nicht, die {name2} sagen, wo zu suchen ist. Nennen Sie andere (--locate-with, --locate-classes), oder lassen Sie es das ganze Bild sehen (--locate-with none).</translation>
    </message>
    <message>
        <source>{name} has 8 bits, but {factors} is not one float32 factor for each row of it.</source>
        <translation>{name} hat 8 Bit, aber {factors} ist nicht ein float32-Faktor für jede seiner Zeilen.</translation>
    </message>
    <message>
        <source>{name} has factors ({factors}) that are not positive numbers: the file is damaged. Get it again.</source>
        <translation>{name} hat Faktoren ({factors}), die keine positiven Zahlen sind: Die Datei ist beschädigt. Besorgen Sie sie erneut.</translation>
    </message>
    <message>
        <source>{name} has found none of {missing}, so the result is empty.</source>
        <translation>{name} hat nichts von {missing} gefunden, daher ist das Ergebnis leer.</translation>
    </message>
    <message>
        <source>{name} has no parts.</source>
        <translation>{name} hat keine Teile.</translation>
    </message>
    <message>
        <source>{name} has no segment for {name2} (label value {value}). Give the DICOM segmentation of the same result.</source>
        <translation>{name} hat kein Segment für {name2} (Labelwert {value}). Geben Sie die DICOM-Segmentierung desselben Ergebnisses an.</translation>
    </message>
    <message>
        <source>{name} has no segment {segment_id}. Choose one of its segments.</source>
        <translation>{name} hat kein Segment {segment_id}. Wählen Sie eines der Segmente.</translation>
    </message>
    <message>
        <source>{name} has no valid {key}.</source>
        <translation>{name} hat kein gültiges {key}.</translation>
    </message>
    <message>
        <source>{name} has no voxel above zero, so there is nothing to segment. Is it an image of the kind that the model was trained on?</source>
        <translation>{name} hat kein Voxel über null, also gibt es nichts zu segmentieren. Ist es ein Bild der Art, mit der das Modell trainiert wurde?</translation>
    </message>
    <message>
        <source>{name} has no voxels. Load the image again, or select another volume.</source>
        <translation>{name} hat keine Voxel. Laden Sie das Bild noch einmal, oder wählen Sie ein anderes.</translation>
    </message>
    <message>
        <source>{name} has not found {missing}; the box is that of the others.</source>
        <translation>{name} hat {missing} nicht gefunden; der Quader ist der der übrigen.</translation>
    </message>
    <message>
        <source>{name} has parts with different channels.</source>
        <translation>{name} hat Teile mit verschiedenen Kanälen.</translation>
    </message>
    <message>
        <source>{name} has shape {found}, plans.json requires {shape}</source>
        <translation>{name} hat die Form {found}, plans.json verlangt {shape}</translation>
    </message>
    <message>
        <source>{name} has the entry {item}; it must be text or a whole number.</source>
        <translation>{name} hat den Eintrag {item}; es muss Text oder eine ganze Zahl sein.</translation>
    </message>
    <message>
        <source>{name} has the shape {shape}; its layer requires {name2}.</source>
        <translation>{name} hat die Form {shape}; die Schicht verlangt {name2}.</translation>
    </message>
    <message>
        <source>{name} has values beyond the largest float16 number, 65504: use --bits 32.</source>
        <translation>{name} hat Werte über der größten float16-Zahl, 65504: Verwenden Sie --bits 32.</translation>
    </message>
    <message>
        <source>{name} has values that are not finite: the training of this model failed.</source>
        <translation>{name} hat Werte, die nicht endlich sind: Das Training dieses Modells ist fehlgeschlagen.</translation>
    </message>
    <message>
        <source>{name} has variances below 0: the file is damaged. Get it again.</source>
        <translation>{name} hat Varianzen unter 0: Die Datei ist beschädigt. Besorgen Sie sie erneut.</translation>
    </message>
    <message>
        <source>{name} has {broken} voxels that are NaN or infinite. Replace them first, for example with air.</source>
        <translation>{name} hat {broken} Voxel, die NaN oder unendlich sind. Ersetzen Sie sie zuerst, zum Beispiel durch Luft.</translation>
    </message>
    <message>
        <source>{name} has {count} values per voxel, and a scalar volume with one is needed. Convert it with Slicer's module Vector to Scalar Volume.</source>
        <translation>{name} hat {count} Werte je Voxel, gebraucht wird ein skalares Bild mit einem. Wandeln Sie es mit Slicers Modul Vector to Scalar Volume um.</translation>
    </message>
    <message>
        <source>{name} has {dimensions} voxels, {count} GiB; {available} GiB of memory are free. Crop or resample it first.</source>
        <translation>{name} hat {dimensions} Voxel, {count} GiB; {available} GiB Speicher sind frei. Schneiden Sie das Bild zu, oder vergröbern Sie es zuerst.</translation>
    </message>
    <message>
        <source>{name} has {rounded} voxels that are rounded, by up to {most}: the network computes in float32, which holds all whole numbers up to {whole_in_float}. If a constant was added to the image, subtract it.</source>
        <translation>{name} hat {rounded} Voxel, die gerundet werden, um bis zu {most}: Das Netz rechnet in float32, das alle ganzen Zahlen bis {whole_in_float} darstellt. Wenn zum Bild eine Konstante addiert wurde, ziehen Sie sie ab.</translation>
    </message>
    <message>
        <source>{name} has {shape} voxels of {spacing} mm (x, y, z)</source>
        <translation>{name} hat {shape} Voxel von {spacing} mm (x, y, z)</translation>
    </message>
    <message>
        <source>{name} has {size} bytes, but the manifest declares {size2}.</source>
        <translation>{name} hat {size} Bytes, das Manifest nennt {size2}.</translation>
    </message>
    <message>
        <source>{name} has {size} bytes; at most {max_json} are read.</source>
        <translation>{name} hat {size} Bytes; höchstens {max_json} werden gelesen.</translation>
    </message>
    <message>
        <source>{name} has {size} voxels and the segmentation {size2}. {same_grid}</source>
        <translation>{name} hat {size} Voxel und die Segmentierung {size2}. {same_grid}</translation>
    </message>
    <message>
        <source>{name} has {size} voxels: between the centres of so few voxels lies none of the model's grid. Give the whole head, not a slice.</source>
        <translation>{name} hat {size} Voxel: Zwischen den Mitten so weniger Voxel liegt keines vom Gitter des Modells. Geben Sie den ganzen Kopf an, nicht eine Schicht.</translation>
    </message>
    <message>
        <source>{name} is a colour image: each voxel has {values} values, as for red, green and blue. The model needs grey values: convert it, as the module Vector to Scalar Volume of 3D Slicer does.</source>
        <translation>{name} ist ein Farbbild: Jedes Voxel hat {values} Werte, wie für Rot, Grün und Blau. Das Modell braucht Grauwerte: Wandeln Sie es um, etwa mit dem Modul „Vector to Scalar Volume“ von 3D Slicer.</translation>
    </message>
    <message>
        <source>{name} is a label map. Select the image that it belongs to.</source>
        <translation>{name} ist eine Label-Map. Wählen Sie das Bild, zu dem sie gehört.</translation>
    </message>
    <message>
        <source>{name} is a {dimensions}D image; the model segments 3D images. {hint}</source>
        <translation>{name} ist ein {dimensions}D-Bild; das Modell segmentiert 3D-Bilder. {hint}</translation>
    </message>
    <message>
        <source>{name} is being downloaded</source>
        <translation>{name} wird heruntergeladen</translation>
    </message>
    <message>
        <source>{name} is damaged: its SHA-256 differs from the manifest. Get the bundle again.</source>
        <translation>{name} ist beschädigt: Die SHA-256 weicht vom Manifest ab. Besorgen Sie das Paket noch einmal.</translation>
    </message>
    <message>
        <source>{name} is damaged: {missing} bytes of its pixels are missing. Export the series again.</source>
        <translation>{name} ist beschädigt: Von den Pixeln fehlen {missing} Byte. Exportieren Sie die Serie noch einmal.</translation>
    </message>
    <message>
        <source>{name} is empty; leave it out for all {name2}.</source>
        <translation>{name} ist leer; lassen Sie es für alle {name2} weg.</translation>
    </message>
    <message>
        <source>{name} is missing.</source>
        <translation>{name} fehlt.</translation>
    </message>
    <message>
        <source>{name} is no longer at {place}. Add it again from where it is now.</source>
        <translation>{name} ist nicht mehr in {place}. Fügen Sie es von seinem jetzigen Ort noch einmal hinzu.</translation>
    </message>
    <message>
        <source>{name} is not a plain array of floating-point numbers.</source>
        <translation>{name} ist kein einfaches Array von Gleitkommazahlen.</translation>
    </message>
    <message>
        <source>{name} is not at {address}, or no longer. Send it there (upload).</source>
        <translation>{name} ist nicht oder nicht mehr bei {address}. Senden Sie es dorthin (upload).</translation>
    </message>
    <message>
        <source>{name} is not downloaded. Run `classscaleseg models download {id}`, or save {addresses} {where}.</source>
        <translation>{name} ist nicht heruntergeladen. Führen Sie `classscaleseg models download {id}` aus, oder speichern Sie {addresses} {where}.</translation>
    </message>
    <message>
        <source>{name} is part of ClassScaleSeg and cannot be removed on its own.</source>
        <translation>{name} ist Teil von ClassScaleSeg und kann nicht einzeln entfernt werden.</translation>
    </message>
    <message>
        <source>{name} is stored as {stored}; only float32 is read. Convert it without quantisation.</source>
        <translation>{name} ist als {stored} gespeichert; nur float32 wird gelesen. Wandeln Sie es ohne Quantisierung um.</translation>
    </message>
    <message>
        <source>{name} is under the non-linear transform {value}. Harden the transform (in Slicer's Data module, right-click the transform icon and choose Harden transform), then segment the hardened volume.</source>
        <translation>{name} steht unter der nichtlinearen Transformation {value}. Härten Sie sie (im Modul Data mit der rechten Maustaste auf das Symbol der Transformation klicken und „Harden transform“ wählen), und segmentieren Sie dann das gehärtete Bild.</translation>
    </message>
    <message>
        <source>{name} is zero everywhere, so there is nothing to segment. Check the image.</source>
        <translation>{name} ist überall null, also gibt es nichts zu segmentieren. Prüfen Sie das Bild.</translation>
    </message>
    <message>
        <source>{name} is {distance} mm away from the segmentation. {same_grid}</source>
        <translation>{name} liegt {distance} mm neben der Segmentierung. {same_grid}</translation>
    </message>
    <message>
        <source>{name} is {value}; it must be a list of texts and whole numbers.</source>
        <translation>{name} ist {value}; es muss eine Liste von Texten und ganzen Zahlen sein.</translation>
    </message>
    <message>
        <source>{name} may not be given 'preprocess', which would be code.</source>
        <translation>{name} darf kein 'preprocess' haben, das Code wäre.</translation>
    </message>
    <message>
        <source>{name} must be a list of one or more texts.</source>
        <translation>{name} muss eine Liste von einem oder mehr Texten sein.</translation>
    </message>
    <message>
        <source>{name} must be a list of {what}.</source>
        <translation>{name} muss eine Liste von {what} sein.</translation>
    </message>
    <message>
        <source>{name} must be an address.</source>
        <translation>{name} muss eine Adresse sein.</translation>
    </message>
    <message>
        <source>{name} must be the path of a file or folder.</source>
        <translation>{name} muss der Pfad einer Datei oder eines Ordners sein.</translation>
    </message>
    <message>
        <source>{name} must be the path of a file.</source>
        <translation>{name} muss der Pfad einer Datei sein.</translation>
    </message>
    <message>
        <source>{name} must have three dimensions, as the patch_size {patch}.</source>
        <translation>{name} muss drei Dimensionen haben, wie patch_size {patch}.</translation>
    </message>
    <message>
        <source>{name} needs {channels} channel(s), and the model that segments {channels2}. A model that locates must take the same images.</source>
        <translation>{name} braucht {channels} Kanäle, das segmentierende Modell {channels2}. Ein Modell, das die Lage findet, muss dieselben Bilder nehmen.</translation>
    </message>
    <message>
        <source>{name} other segmentation</source>
        <translation>{name} andere Segmentierung</translation>
    </message>
    <message>
        <source>{name} takes images of three dimensions, but patch_size {patch} has {patch2}.</source>
        <translation>{name} nimmt Bilder mit drei Dimensionen, aber patch_size {patch} hat {patch2}.</translation>
    </message>
    <message>
        <source>{name} was not loaded from DICOM, so a DICOM file of its segmentation would have no patient and study. Import the series in the module DICOM, load it from there, and segment that volume; or save .seg.nrrd.</source>
        <translation>{name} wurde nicht aus DICOM geladen, deshalb hätte eine DICOM-Datei der Segmentierung weder Patient noch Studie. Importieren Sie die Serie im Modul DICOM, laden Sie sie von dort und segmentieren Sie diesen Bilddatensatz; oder speichern Sie .seg.nrrd.</translation>
    </message>
    <message>
        <source>{name} was removed from the scene, so its segmentation was discarded.</source>
        <translation>{name} wurde aus der Szene entfernt, daher wurde die Segmentierung verworfen.</translation>
    </message>
    <message>
        <source>{name} was removed from the scene, so its segmentation was stopped.</source>
        <translation>{name} wurde aus der Szene entfernt, daher wurde die Segmentierung abgebrochen.</translation>
    </message>
    <message>
        <source>{name} was trained on boxes around {classes}. They are found by {name2}, which is not downloaded. Run `classscaleseg models download {id}`, or let the model see the whole image, for which it was not trained (--locate-with none).</source>
        <translation>{name} wurde mit Quadern um {classes} trainiert. Diese findet {name2}, das nicht heruntergeladen ist. Führen Sie `classscaleseg models download {id}` aus, oder lassen Sie das Modell das ganze Bild sehen, wofür es nicht trainiert wurde (--locate-with none).</translation>
    </message>
    <message>
        <source>{name}, with intensities from {value} to {value2}, does not suit the preprocessing of the model, {named} ({why}). Give an image of the kind that the model was trained on.</source>
        <translation>{name}, mit Intensitäten von {value} bis {value2}, passt nicht zur Vorverarbeitung des Modells, {named} ({why}). Geben Sie ein Bild der Art an, mit der das Modell trainiert wurde.</translation>
    </message>
    <message>
        <source>{name}, with intensities from {value} to {value2}, has no contrast after it was scaled to {levels} levels. Give an image of the kind that the model was trained on.</source>
        <translation>{name}, mit Intensitäten von {value} bis {value2}, hat nach dem Skalieren auf {levels} Stufen keinen Kontrast. Geben Sie ein Bild der Art an, mit der das Modell trainiert wurde.</translation>
    </message>
    <message>
        <source>{name}: from {before} to {after} voxels ({lost} lost, {gained} gained)</source>
        <translation>{name}: von {before} auf {after} Voxel ({lost} verloren, {gained} gewonnen)</translation>
    </message>
    <message>
        <source>{name}: the channels have different grids. Resample them to the grid of the first channel.</source>
        <translation>{name}: Die Kanäle haben verschiedene Gitter. Bringen Sie sie auf das Gitter des ersten Kanals.</translation>
    </message>
    <message>
        <source>{name}: {files} channel(s) were given, but the model needs {channels}. Give one file for each channel, in the model's order.</source>
        <translation>{name}: {files} Kanäle wurden angegeben, das Modell braucht aber {channels}. Geben Sie für jeden Kanal eine Datei an, in der Reihenfolge des Modells.</translation>
    </message>
    <message>
        <source>{name}: {files} file(s){inside} were given, but the model needs {channels} channel(s). Give one file for each channel, in the model's order.</source>
        <translation>{name}: {files} Dateien{inside} sind angegeben, aber das Modell braucht {channels} Kanäle. Geben Sie für jeden Kanal eine Datei an, in der Reihenfolge des Modells.</translation>
    </message>
    <message>
        <source>{odd} is missing.</source>
        <translation>{odd} fehlt.</translation>
    </message>
    <message>
        <source>{odd} is not known.</source>
        <translation>{odd} ist nicht bekannt.</translation>
    </message>
    <message>
        <source>{odd} of {slices} slices ({odd2}) have another {what} than the others: {odd3} instead of {usual}. Move them to a separate folder.</source>
        <translation>{odd} von {slices} Schichten ({odd2}) haben etwas anderes als die übrigen bei: {what}, nämlich {odd3} statt {usual}. Verschieben Sie sie in einen eigenen Ordner.</translation>
    </message>
    <message>
        <source>{offset} bytes of this image are here, so the next part begins there, not at {offset2}.</source>
        <translation>Von diesem Bild sind {offset} Bytes da, also beginnt der nächste Teil dort, nicht bei {offset2}.</translation>
    </message>
    <message>
        <source>{others} is the folder of the segmentations themselves. Compare them with those of another.</source>
        <translation>{others} ist der Ordner der Segmentierungen selbst. Vergleichen Sie sie mit denen eines anderen.</translation>
    </message>
    <message>
        <source>{output} is not on the grid of {files}, which may have been replaced since.</source>
        <translation>{output} ist nicht auf dem Gitter von {files}; das Bild kann inzwischen ersetzt worden sein.</translation>
    </message>
    <message>
        <source>{output} must end in .zip: a bundle is a zip.</source>
        <translation>{output} muss auf .zip enden: Ein Paket ist eine Zip-Datei.</translation>
    </message>
    <message>
        <source>{output} or its colour table would replace another result. Choose another name.</source>
        <translation>{output} oder die zugehörige Farbtabelle würde ein anderes Ergebnis ersetzen. Wählen Sie einen anderen Namen.</translation>
    </message>
    <message>
        <source>{parent} has {free} MB left, but {total} MB are needed. Free some space there, or set CLASSSCALESEG_MODELS to another folder.</source>
        <translation>{parent} hat noch {free} MB frei, {total} MB werden gebraucht. Schaffen Sie dort Platz, oder setzen Sie CLASSSCALESEG_MODELS auf einen anderen Ordner.</translation>
    </message>
    <message>
        <source>{parent} is gone, perhaps because a network drive is not connected. Connect it. If the folder was deleted, start again.</source>
        <translation>{parent} ist nicht mehr da, vielleicht weil ein Netzlaufwerk nicht verbunden ist. Verbinden Sie es. Wenn der Ordner gelöscht wurde, starten Sie noch einmal.</translation>
    </message>
    <message>
        <source>{pid} is not a process id. Give the number of the process that is to be watched.</source>
        <translation>{pid} ist keine Prozess-ID. Geben Sie die Nummer des Prozesses an, der überwacht werden soll.</translation>
    </message>
    <message>
        <source>{pieces} is left out: {what}.</source>
        <translation>{pieces} wird weggelassen: {what}.</translation>
    </message>
    <message>
        <source>{place} is damaged: its SHA-256 is {digest}, but {wanted} was expected. Delete it and download it again.</source>
        <translation>{place} ist beschädigt: Die SHA-256 ist {digest}, erwartet wurde {wanted}. Löschen Sie die Datei und laden Sie sie noch einmal herunter.</translation>
    </message>
    <message>
        <source>{place} is not complete: {missing} is missing. Delete that folder and download it again.</source>
        <translation>{place} ist nicht vollständig: {missing} fehlt. Löschen Sie diesen Ordner und laden Sie noch einmal herunter.</translation>
    </message>
    <message>
        <source>{place} job is before this one.</source>
        <translation>{place} Auftrag ist vor diesem.</translation>
    </message>
    <message>
        <source>{place} jobs are before this one.</source>
        <translation>{place} Aufträge sind vor diesem.</translation>
    </message>
    <message>
        <source>{purpose} by another process (id {holder}). Wait until it has ended.</source>
        <translation>{purpose} von einem anderen Prozess (ID {holder}). Warten Sie, bis er beendet ist.</translation>
    </message>
    <message>
        <source>{python} cannot be started ({strerror}). It should be a Python interpreter.</source>
        <translation>{python} kann nicht gestartet werden ({strerror}). Es sollte ein Python-Interpreter sein.</translation>
    </message>
    <message>
        <source>{rank_entry} is {rank}; a whole number from 1 to {classes}, the classes, was expected.</source>
        <translation>{rank_entry} ist {rank}; erwartet wurde eine ganze Zahl von 1 bis {classes}, der Zahl der Klassen.</translation>
    </message>
    <message>
        <source>{reasons} more faults are not listed.</source>
        <translation>{reasons} weitere Fehler sind nicht genannt.</translation>
    </message>
    <message>
        <source>{reports} would refer to a DICOM segmentation, and none is written. Add -o NAME{dicom_suffix}, or write the statistics as .csv or .xlsx.</source>
        <translation>{reports} würde sich auf eine DICOM-Segmentierung beziehen, und keine wird geschrieben. Ergänzen Sie -o NAME{dicom_suffix}, oder schreiben Sie die Statistik als .csv oder .xlsx.</translation>
    </message>
    <message>
        <source>{result} cannot be read ({error}). Correct its permissions.</source>
        <translation>{result} kann nicht gelesen werden ({error}). Berichtigen Sie die Zugriffsrechte.</translation>
    </message>
    <message>
        <source>{said} Segment it again (--overwrite), or name another folder.</source>
        <translation>{said} Segmentieren Sie noch einmal (--overwrite), oder geben Sie einen anderen Ordner an.</translation>
    </message>
    <message>
        <source>{segmentations} has no segmentation: none of its files ends with {suffix}.</source>
        <translation>{segmentations} hat keine Segmentierung: Keine der Dateien endet auf {suffix}.</translation>
    </message>
    <message>
        <source>{segmentation} does not allow a report that refers to it ({error}). Write .csv.</source>
        <translation>{segmentation} erlaubt keinen Bericht, der darauf verweist ({error}). Schreiben Sie .csv.</translation>
    </message>
    <message>
        <source>{segmentation} does not say which images it belongs to, so a report cannot refer to it.</source>
        <translation>{segmentation} sagt nicht, zu welchen Bildern sie gehört, daher kann kein Bericht auf sie verweisen.</translation>
    </message>
    <message>
        <source>{sending} images of this token are being sent. Wait for one of them.</source>
        <translation>{sending} Bilder dieses Tokens werden gerade gesendet. Warten Sie auf eines davon.</translation>
    </message>
    <message>
        <source>{sentence} Copy plans.json and dataset.json from the training into it.</source>
        <translation>{sentence} Kopieren Sie plans.json und dataset.json aus dem Training hinein.</translation>
    </message>
    <message>
        <source>{sentence} It has data for training; trained models are in the folder nnUNet_results.</source>
        <translation>{sentence} Dort liegen Trainingsdaten; trainierte Modelle sind im Ordner nnUNet_results.</translation>
    </message>
    <message>
        <source>{sizes} million voxels; at most {most_voxels} are allowed here</source>
        <translation>{sizes} Millionen Voxel; hier sind höchstens {most_voxels} erlaubt</translation>
    </message>
    <message>
        <source>{size} GiB of GPU memory</source>
        <translation>{size} GiB GPU-Speicher</translation>
    </message>
    <message>
        <source>{size} GiB of memory</source>
        <translation>{size} GiB Speicher</translation>
    </message>
    <message>
        <source>{source} contains more than {max_folders} folders: give the model folder itself.</source>
        <translation>{source} enthält mehr als {max_folders} Ordner: Geben Sie den Modellordner selbst an.</translation>
    </message>
    <message>
        <source>{source} contains no model: it has neither a manifest.json nor a plans.json.</source>
        <translation>{source} enthält kein Modell: weder eine manifest.json noch eine plans.json.</translation>
    </message>
    <message>
        <source>{source} does not exist: give a model folder, an exported zip or a bundle.</source>
        <translation>{source} existiert nicht: Geben Sie einen Modellordner, eine exportierte Zip-Datei oder ein Paket an.</translation>
    </message>
    <message>
        <source>{source} is neither a file nor a folder: give a model folder, an exported zip or a bundle.</source>
        <translation>{source} ist weder eine Datei noch ein Ordner: Geben Sie einen Modellordner, eine exportierte Zip-Datei oder ein Paket an.</translation>
    </message>
    <message>
        <source>{source} is part of a model: name the folder above: {above}</source>
        <translation>{source} ist Teil eines Modells: Geben Sie den Ordner darüber an: {above}</translation>
    </message>
    <message>
        <source>{source} needs {channels} channel(s), but {sources} needs {counts}. Models that segment the same image must have the same channels; leave one of them out.</source>
        <translation>{source} braucht {channels} Kanäle, {sources} aber {counts}. Modelle, die dasselbe Bild segmentieren, müssen dieselben Kanäle haben; lassen Sie eines davon weg.</translation>
    </message>
    <message>
        <source>{target} is kept, though the archive gives another file with its identifier. Delete it to get that one.</source>
        <translation>{target} bleibt, obwohl das Archiv eine andere Datei mit diesem Bezeichner liefert. Löschen Sie die Datei, um jene zu bekommen.</translation>
    </message>
    <message>
        <source>{text} Its last output was: {last}</source>
        <translation>{text} Die letzte Ausgabe war: {last}</translation>
    </message>
    <message>
        <source>{text} cannot be searched for (--{what}). Give 1 to {longest} letters without a backslash, or leave it out.</source>
        <translation>Nach {text} kann nicht gesucht werden ({what}). Geben Sie 1 bis {longest} Zeichen ohne Backslash ein, oder lassen Sie es weg.</translation>
    </message>
    <message>
        <source>{text} does not exist. Give a model folder, an exported zip, a bundle, or a model of the catalogue.</source>
        <translation>{text} existiert nicht. Geben Sie einen Modellordner, eine exportierte Zip-Datei, ein Paket oder ein Modell des Katalogs an.</translation>
    </message>
    <message>
        <source>{text} ends before it begins. Write the earlier day first.</source>
        <translation>{text} endet, bevor es beginnt. Schreiben Sie den früheren Tag zuerst.</translation>
    </message>
    <message>
        <source>{text} is in the catalogue already, as {name}.</source>
        <translation>{text} ist schon im Katalog, als {name}.</translation>
    </message>
    <message>
        <source>{text} is neither a day nor a range of days. Write 20260131, 20260101-20260331, or 20260101- for all since then.</source>
        <translation>{text} ist weder ein Tag noch ein Zeitraum. Schreiben Sie 20260131, 20260101-20260331, oder 20260101- für alle seitdem.</translation>
    </message>
    <message>
        <source>{text} is neither a file or folder nor a model of the catalogue. Did you mean {hint}? The command `classscaleseg models list` lists all models.</source>
        <translation>{text} ist weder eine Datei oder ein Ordner noch ein Modell des Katalogs. Meinten Sie {hint}? Der Befehl `classscaleseg models list` zeigt alle Modelle.</translation>
    </message>
    <message>
        <source>{text} is neither a file or folder nor a model of the catalogue. The command `classscaleseg models list` lists all models.</source>
        <translation>{text} ist weder eine Datei oder ein Ordner noch ein Modell des Katalogs. Der Befehl `classscaleseg models list` zeigt alle Modelle.</translation>
    </message>
    <message>
        <source>{text} is not a modality. Give one as DICOM abbreviates it, such as CT, MR or SEG.</source>
        <translation>{text} ist keine Modalität. Geben Sie eine an, wie DICOM sie abkürzt, etwa CT, MR oder SEG.</translation>
    </message>
    <message>
        <source>{text} is not a unique identifier (UID) of a study or series: numbers with points between them, 64 letters at most. classscaleseg dicom find lists them.</source>
        <translation>{text} ist kein Bezeichner (UID) einer Studie oder Serie: Zahlen mit Punkten dazwischen, höchstens 64 Zeichen.</translation>
    </message>
    <message>
        <source>{text}, {islands} island removed</source>
        <translation>{text}, {islands} Insel entfernt</translation>
    </message>
    <message>
        <source>{text}, {islands} islands removed</source>
        <translation>{text}, {islands} Inseln entfernt</translation>
    </message>
    <message>
        <source>{text}; islands removed: {islands}.</source>
        <translation>{text}; entfernte Inseln: {islands}.</translation>
    </message>
    <message>
        <source>{text}; this does not grow with the number of classes</source>
        <translation>{text}; das wächst nicht mit der Zahl der Klassen</translation>
    </message>
    <message>
        <source>{text}; this grows with the number of classes</source>
        <translation>{text}; das wächst mit der Zahl der Klassen</translation>
    </message>
    <message>
        <source>{uploads} images of this token are here already. Remove some, or wait until jobs have ended.</source>
        <translation>{uploads} Bilder dieses Tokens sind schon hier. Entfernen Sie einige, oder warten Sie, bis Aufträge enden.</translation>
    </message>
    <message>
        <source>{url} answers with more than {largest} MiB, as no DICOM archive does (status {status_code}). Give the root of its DICOMweb service{more}.</source>
        <translation>{url} antwortet mit mehr als {largest} MiB, was kein DICOM-Archiv tut (Status {status_code}). Geben Sie die Wurzel seines DICOMweb-Dienstes an{more}.</translation>
    </message>
    <message>
        <source>{url} is too slow: less than {least_bytes} KiB came in {seconds} s. Try again later, or tell its administrator.</source>
        <translation>{url} ist zu langsam: In {seconds} s kamen weniger als {least_bytes} KiB. Versuchen Sie es später wieder, oder sagen Sie es dem Administrator.</translation>
    </message>
    <message>
        <source>{value} already exists. Allow overwriting (--overwrite), or choose another name.</source>
        <translation>{value} existiert bereits. Erlauben Sie das Überschreiben (--overwrite), oder wählen Sie einen anderen Namen.</translation>
    </message>
    <message>
        <source>{value} already exists; allow overwriting, or name another folder for the report.</source>
        <translation>{value} gibt es schon; erlauben Sie das Überschreiben oder geben Sie einen anderen Ordner für den Bericht an.</translation>
    </message>
    <message>
        <source>{value} already has segments. Select another segmentation, or replace them (replace=True).</source>
        <translation>{value} hat schon Segmente. Wählen Sie eine andere Segmentierung, oder ersetzen Sie sie (replace=True).</translation>
    </message>
    <message>
        <source>{value} and {image} have different frames of reference (FrameOfReferenceUID). They are taken as if it were the same.</source>
        <translation>{value} und {image} haben verschiedene Bezugsrahmen (FrameOfReferenceUID). Sie werden genommen, als wäre es derselbe.</translation>
    </message>
    <message>
        <source>{value} cannot be locked ({strerror}). Its file system may have no locks; choose a folder on another one.</source>
        <translation>{value} kann nicht gesperrt werden ({strerror}). Das Dateisystem kennt vielleicht keine Sperren; wählen Sie einen Ordner auf einem anderen.</translation>
    </message>
    <message>
        <source>{value} cannot be read ({error}).</source>
        <translation>{value} kann nicht gelesen werden ({error}).</translation>
    </message>
    <message>
        <source>{value} cannot be read ({strerror}), and a DICOM segmentation refers to the series that was segmented. Name its folder, or write .seg.nrrd.</source>
        <translation>{value} kann nicht gelesen werden ({strerror}), und eine DICOM-Segmentierung verweist auf die segmentierte Serie. Geben Sie ihren Ordner an, oder schreiben Sie .seg.nrrd.</translation>
    </message>
    <message>
        <source>{value} cannot be read ({strerror}).</source>
        <translation>{value} kann nicht gelesen werden ({strerror}).</translation>
    </message>
    <message>
        <source>{value} cannot be read ({strerror}). Correct its name, or leave it out.</source>
        <translation>{value} ist nicht lesbar ({strerror}). Korrigieren Sie den Namen, oder lassen Sie es weg.</translation>
    </message>
    <message>
        <source>{value} cannot be read as a DICOM segmentation, to which the report would refer. Give the .seg.dcm that was written from this result.</source>
        <translation>{value} kann nicht als DICOM-Segmentierung gelesen werden, auf die der Bericht verweisen würde. Geben Sie die .seg.dcm an, die aus diesem Ergebnis geschrieben wurde.</translation>
    </message>
    <message>
        <source>{value} cannot be read as a job in JSON ({error}).</source>
        <translation>{value} kann nicht als Auftrag in JSON gelesen werden ({error}).</translation>
    </message>
    <message>
        <source>{value} cannot be read as the model card ({error}): give a UTF-8 text file.</source>
        <translation>{value} kann nicht als Modellkarte gelesen werden ({error}): Geben Sie eine Textdatei in UTF-8 an.</translation>
    </message>
    <message>
        <source>{value} cannot be read; it may be truncated ({error}).</source>
        <translation>{value} kann nicht gelesen werden; die Datei kann abgeschnitten sein ({error}).</translation>
    </message>
    <message>
        <source>{value} cannot be used as a case of a report. {rstrip}. Remove the file, or segment the case again with --report.</source>
        <translation>{value} ist als Fall eines Berichts nicht zu gebrauchen. {rstrip}. Entfernen Sie die Datei oder segmentieren Sie den Fall noch einmal mit --report.</translation>
    </message>
    <message>
        <source>{value} cannot be written ({text}). Choose a shorter name.</source>
        <translation>{value} kann nicht geschrieben werden ({text}). Wählen Sie einen kürzeren Namen.</translation>
    </message>
    <message>
        <source>{value} cannot be written ({text}). Choose another folder, or make room there.</source>
        <translation>{value} kann nicht geschrieben werden ({text}). Wählen Sie einen anderen Ordner, oder schaffen Sie dort Platz.</translation>
    </message>
    <message>
        <source>{value} could not be loaded as a volume. The reason is in Slicer's error log (View &gt; Error Log).</source>
        <translation>{value} konnte nicht als Bilddatensatz geladen werden. Der Grund steht im Fehlerprotokoll von Slicer (Ansicht &gt; Fehlerprotokoll).</translation>
    </message>
    <message>
        <source>{value} could not be written. The reason is in Slicer's error log (View &gt; Error Log).</source>
        <translation>{value} konnte nicht geschrieben werden. Der Grund steht im Fehlerprotokoll von Slicer (Ansicht &gt; Fehlerprotokoll).</translation>
    </message>
    <message>
        <source>{value} declares {dimensions} voxels, more than its {held} bytes can hold: its header is broken.</source>
        <translation>{value} gibt {dimensions} Voxel an, mehr als {held} Bytes fassen können: Der Header ist fehlerhaft.</translation>
    </message>
    <message>
        <source>{value} declares {members} members, more or larger than any model has. It was not opened.</source>
        <translation>{value} nennt {members} Einträge, mehr oder größere als irgendein Modell hat. Die Datei wurde nicht geöffnet.</translation>
    </message>
    <message>
        <source>{value} does not exist.</source>
        <translation>{value} existiert nicht.</translation>
    </message>
    <message>
        <source>{value} does not say how far its voxels are apart ({field}: {value2}). Correct its header.</source>
        <translation>{value} sagt nicht, wie weit die Voxel auseinanderliegen ({field}: {value2}). Berichtigen Sie den Header.</translation>
    </message>
    <message>
        <source>{value} does not say how far its voxels are apart: 1 mm is assumed. Add the spacing to its header.</source>
        <translation>{value} gibt den Abstand der Voxel nicht an: 1 mm wird angenommen. Ergänzen Sie den Abstand im Header.</translation>
    </message>
    <message>
        <source>{value} has a direction matrix that is not a rotation: {direction}. Correct its header.</source>
        <translation>{value} hat eine Richtungsmatrix, die keine Drehung ist: {direction}. Berichtigen Sie den Header.</translation>
    </message>
    <message>
        <source>{value} has axes that are not perpendicular, which ITK, the reader of this model, refuses. Resample it to perpendicular axes, or correct the sform of its header.</source>
        <translation>{value} hat Achsen, die nicht senkrecht sind; ITK, das dieses Modell zum Lesen verwendet, lehnt sie ab. Bringen Sie das Bild auf senkrechte Achsen, oder berichtigen Sie die sform im Header.</translation>
    </message>
    <message>
        <source>{value} has axes that do not span a volume. Correct the sform or qform of its header.</source>
        <translation>{value} hat Achsen, die kein Volumen aufspannen. Berichtigen Sie sform oder qform im Header.</translation>
    </message>
    <message>
        <source>{value} has complex voxels; the model needs real numbers. Convert them to magnitudes.</source>
        <translation>{value} hat komplexe Voxel; das Modell braucht reelle Zahlen. Wandeln Sie sie in Beträge um.</translation>
    </message>
    <message>
        <source>{value} has its spacing in {units} ({field}), and only mm are read. Convert the numbers in its header, or export it again.</source>
        <translation>{value} hat seine Abstände in {units} ({field}), und nur mm werden gelesen. Rechnen Sie die Zahlen im Header um, oder exportieren Sie die Datei neu.</translation>
    </message>
    <message>
        <source>{value} has its voxels in {name}, a path of Windows, which is not found here. Copy that file beside the header, and write its name alone into the header (ElementDataFile).</source>
        <translation>{value} hat seine Voxel in {name}, einem Pfad von Windows, der hier nicht gefunden wird. Kopieren Sie diese Datei neben den Header und schreiben Sie nur ihren Namen in den Header (ElementDataFile).</translation>
    </message>
    <message>
        <source>{value} has its voxels in {name}, which is missing. Copy it there too.</source>
        <translation>{value} hat seine Voxel in {name}, das fehlt. Kopieren Sie es auch dorthin.</translation>
    </message>
    <message>
        <source>{value} has lost its transform meanwhile, or has got another one.</source>
        <translation>{value} hat inzwischen seine Transformation verloren oder eine andere bekommen.</translation>
    </message>
    <message>
        <source>{value} has more than {most_entries} entries in its header, too many to be read.</source>
        <translation>{value} hat mehr als {most_entries} Einträge im Header, zu viele, um gelesen zu werden.</translation>
    </message>
    <message>
        <source>{value} has no frame at {value2}. Select another frame.</source>
        <translation>{value} hat kein Bild bei {value2}. Wählen Sie ein anderes Bild.</translation>
    </message>
    <message>
        <source>{value} has no frame of reference (FrameOfReferenceUID); the segmentation gets one of its own. Viewers that compare them may not show it over the images.</source>
        <translation>{value} hat keinen Bezugsrahmen (FrameOfReferenceUID); die Segmentierung bekommt einen eigenen. Programme, die beide vergleichen, zeigen sie vielleicht nicht über den Bildern.</translation>
    </message>
    <message>
        <source>{value} has no structure, so there is nothing to save.</source>
        <translation>{value} hat keine Struktur, also gibt es nichts zu speichern.</translation>
    </message>
    <message>
        <source>{value} has no voxel in {name}. Choose the volume on which it was made.</source>
        <translation>{value} hat in {name} kein Voxel. Wählen Sie den Bilddatensatz, auf dem die Segmentierung entstanden ist.</translation>
    </message>
    <message>
        <source>{value} has slices of several patients (PatientID), and a segmentation belongs to one. Find out whose they are, and correct it where they come from.</source>
        <translation>{value} hat Schichten mehrerer Patienten (PatientID), und eine Segmentierung gehört zu einem. Finden Sie heraus, wessen sie sind, und berichtigen Sie es dort, wo sie herkommen.</translation>
    </message>
    <message>
        <source>{value} has slices of several studies, and a segmentation is part of one. {other_format}</source>
        <translation>{value} hat Schichten mehrerer Studien, und eine Segmentierung gehört zu einer. {other_format}</translation>
    </message>
    <message>
        <source>{value} has spacing {spacing} mm; every spacing must be positive. Correct its header.</source>
        <translation>{value} hat den Voxelabstand {spacing} mm; jeder Abstand muss positiv sein. Berichtigen Sie den Header.</translation>
    </message>
    <message>
        <source>{value} has voxels of the type {dtype}; the model needs numbers. Convert it.</source>
        <translation>{value} hat Voxel vom Typ {dtype}; das Modell braucht Zahlen. Wandeln Sie das Bild um.</translation>
    </message>
    <message>
        <source>{value} has {field} = {value2}, which are no numbers. Correct its header.</source>
        <translation>{value} hat {field} = {value2}; das sind keine Zahlen. Berichtigen Sie den Header.</translation>
    </message>
    <message>
        <source>{value} has {places} frames of reference (FrameOfReferenceUID), so the places of its slices cannot be compared. {other_format}</source>
        <translation>{value} hat {places} Bezugsrahmen (FrameOfReferenceUID), daher lassen sich die Orte der Schichten nicht vergleichen. {other_format}</translation>
    </message>
    <message>
        <source>{value} has {value2} voxels and {value3} {value4}. All channels need the same grid. Resample one of the volumes to the grid of the other, for example with Slicer's module Resample Scalar/Vector/DWI Volume.</source>
        <translation>{value} hat {value2} Voxel und {value3} hat {value4}. Alle Kanäle brauchen dasselbe Gitter. Bringen Sie eines der Bilder auf das Gitter des anderen, zum Beispiel mit Slicers Modul Resample Scalar/Vector/DWI Volume.</translation>
    </message>
    <message>
        <source>{value} is a DICOM file without an image. Name the folder of the series.</source>
        <translation>{value} ist eine DICOM-Datei ohne Bild. Geben Sie den Ordner der Serie an.</translation>
    </message>
    <message>
        <source>{value} is a TIFF file, which does not say how far its slices are apart: voxels of {spacing} mm are assumed. If they are others, set the spacing in 3D Slicer (module Volumes), and save it as NRRD.</source>
        <translation>{value} ist eine TIFF-Datei, die nicht sagt, wie weit ihre Schichten auseinander liegen: Angenommen werden Voxel von {spacing} mm. Wenn sie anders sind, setzen Sie den Voxelabstand in 3D Slicer (Modul „Volumes“) und speichern Sie das Bild als NRRD.</translation>
    </message>
    <message>
        <source>{value} is a folder; give the path of a file.</source>
        <translation>{value} ist ein Ordner; geben Sie den Pfad einer Datei an.</translation>
    </message>
    <message>
        <source>{value} is a link whose target is missing.</source>
        <translation>{value} ist ein Link, dessen Ziel fehlt.</translation>
    </message>
    <message>
        <source>{value} is a {size}D image; the model segments 3D images.</source>
        <translation>{value} ist ein {size}D-Bild; das Modell segmentiert 3D-Bilder.</translation>
    </message>
    <message>
        <source>{value} is an image of FreeSurfer, which is not read. Convert it: mri_convert IMAGE.mgz IMAGE.nii.gz</source>
        <translation>{value} ist ein Bild von FreeSurfer, das nicht gelesen wird. Wandeln Sie es um: mri_convert IMAGE.mgz IMAGE.nii.gz</translation>
    </message>
    <message>
        <source>{value} is empty (0 bytes).</source>
        <translation>{value} ist leer (0 Bytes).</translation>
    </message>
    <message>
        <source>{value} is larger than {max_bytes} MiB: this is not a label table.</source>
        <translation>{value} ist größer als {max_bytes} MiB: Das ist keine Label-Tabelle.</translation>
    </message>
    <message>
        <source>{value} is neither a file nor a folder.</source>
        <translation>{value} ist weder eine Datei noch ein Ordner.</translation>
    </message>
    <message>
        <source>{value} is neither a model folder nor a readable zip ({error}): give the folder, the zip made by nnUNetv2_export_model_to_zip, or a bundle.</source>
        <translation>{value} ist weder ein Modellordner noch eine lesbare Zip-Datei ({error}): Geben Sie den Ordner an, die Zip-Datei von nnUNetv2_export_model_to_zip oder ein Paket.</translation>
    </message>
    <message>
        <source>{value} is no DICOM series, so a DICOM segmentation of it would have no patient, study and frame of reference. {other_format}</source>
        <translation>{value} ist keine DICOM-Serie, daher hätte eine DICOM-Segmentierung keinen Patienten, keine Studie und keinen Bezugsrahmen. {other_format}</translation>
    </message>
    <message>
        <source>{value} is no volume, on whose grid contours could be filled.</source>
        <translation>{value} ist kein Volumen, auf dessen Gitter Konturen gefüllt werden könnten.</translation>
    </message>
    <message>
        <source>{value} is not a job of classscaleseg segment. {error}</source>
        <translation>{value} ist kein Auftrag von classscaleseg segment. {error}</translation>
    </message>
    <message>
        <source>{value} is not a name in UTF-8, as results need. Choose another name or folder.</source>
        <translation>{value} ist kein Name in UTF-8, wie Ergebnisse ihn brauchen. Wählen Sie einen anderen Namen oder Ordner.</translation>
    </message>
    <message>
        <source>{value} is not a name in UTF-8, which ITK needs. Rename the file.</source>
        <translation>{value} ist kein Name in UTF-8, den ITK braucht. Benennen Sie die Datei um.</translation>
    </message>
    <message>
        <source>{value} is not an image that SimpleITK can read ({error}). Convert it to NIfTI or NRRD.</source>
        <translation>{value} ist kein Bild, das SimpleITK lesen kann ({error}). Wandeln Sie es in NIfTI oder NRRD um.</translation>
    </message>
    <message>
        <source>{value} is not part of a sequence. Segment it as a single volume.</source>
        <translation>{value} ist nicht Teil einer Sequenz. Segmentieren Sie es als einzelnes Bild.</translation>
    </message>
    <message>
        <source>{value} is of another result of that name, so it is not replaced. Name the result (-o) or the folder of the report differently, or remove the file.</source>
        <translation>{value} ist von einem anderen Ergebnis dieses Namens und wird daher nicht ersetzt. Geben Sie dem Ergebnis (-o) oder dem Ordner des Berichts einen anderen Namen oder entfernen Sie die Datei.</translation>
    </message>
    <message>
        <source>{value} is on another grid than {name}, so its nearest voxels were taken.</source>
        <translation>{value} hat ein anderes Gitter als {name}; übernommen wurden die nächstliegenden Voxel.</translation>
    </message>
    <message>
        <source>{value} is on another grid than {value2}. All channels need the same grid. Resample one of the volumes, for example with Slicer's module Resample Scalar/Vector/DWI Volume.</source>
        <translation>{value} hat ein anderes Gitter als {value2}. Alle Kanäle brauchen dasselbe Gitter. Bringen Sie eines der Bilder auf das Gitter des anderen, zum Beispiel mit Slicers Modul Resample Scalar/Vector/DWI Volume.</translation>
    </message>
    <message>
        <source>{value} is still being corrected. Finish that first, or discard it.</source>
        <translation>{value} wird noch korrigiert. Schließen Sie das zuerst ab, oder verwerfen Sie es.</translation>
    </message>
    <message>
        <source>{value} is the volume to segment, and the confidence would overwrite it. Select another volume for the confidence.</source>
        <translation>{value} ist das Bild, das segmentiert werden soll, und die Konfidenz würde es überschreiben. Wählen Sie für die Konfidenz ein anderes.</translation>
    </message>
    <message>
        <source>{value} is under a transform, and its file would lack that. Harden the transform, or take the segmentation out of it (in Slicer's Data module, right-click the transform icon).</source>
        <translation>{value} steht unter einer Transformation, und die würde in der Datei fehlen. Härten Sie die Transformation, oder nehmen Sie die Segmentierung heraus (im Modul Data mit der rechten Maustaste auf das Symbol der Transformation klicken).</translation>
    </message>
    <message>
        <source>{value} is under a transform, or its segments have no label maps on one grid, and this module cannot save that as DICOM. In the module Data, right-click it and choose Export to DICOM.</source>
        <translation>{value} steht unter einer Transformation, oder die Segmente haben keine Label-Maps auf einem Gitter, und das kann dieses Modul nicht als DICOM speichern. Klicken Sie im Modul Data mit der rechten Maustaste darauf und wählen Sie „Export to DICOM“.</translation>
    </message>
    <message>
        <source>{value} is under the non-linear transform {value2}. Harden the transform (in Slicer's Data module, right-click the transform icon and choose Harden transform).</source>
        <translation>{value} steht unter der nichtlinearen Transformation {value2}. Härten Sie sie (im Modul Data mit der rechten Maustaste auf das Symbol der Transformation klicken und „Harden transform“ wählen).</translation>
    </message>
    <message>
        <source>{value} is write-protected. Take the protection away, or choose another name.</source>
        <translation>{value} ist schreibgeschützt. Heben Sie den Schreibschutz auf, oder wählen Sie einen anderen Namen.</translation>
    </message>
    <message>
        <source>{value} was made from {count} volumes, and {count2} of them are not in the scene any more. Load them, and run again.</source>
        <translation>{value} ist aus {count} Bilddatensätzen entstanden, und {count2} davon sind nicht mehr in der Szene. Laden Sie diese, und segmentieren Sie noch einmal.</translation>
    </message>
    <message>
        <source>{value} was made in a region of {value2}. Outside of it nothing was looked for, so the case says that there is none of the structures, but for what you have drawn.</source>
        <translation>{value} entstand in einem Bereich von {value2}. Außerhalb davon wurde nichts gesucht; der Fall besagt also, dass dort keine der Strukturen ist, außer dem, was Sie gezeichnet haben.</translation>
    </message>
    <message>
        <source>{value} was not written: no confidence was computed. Ask for the confidence when segmenting.</source>
        <translation>{value} wurde nicht geschrieben: Keine Konfidenz wurde berechnet. Verlangen Sie sie beim Segmentieren.</translation>
    </message>
    <message>
        <source>{value} would replace {source}, from which it is made. Choose another name.</source>
        <translation>{value} würde {source} ersetzen, woraus es entsteht. Wählen Sie einen anderen Namen.</translation>
    </message>
    <message>
        <source>{value} {what}. Name a .dcm file, or the folder of a series.</source>
        <translation>{value} {what}. Nennen Sie eine .dcm-Datei oder den Ordner einer Serie.</translation>
    </message>
    <message>
        <source>{value}: a report in DICOM refers to a DICOM segmentation. Write one from the same result and give its file (segmentation=...), or write .csv or .xlsx.</source>
        <translation>{value}: Ein Bericht in DICOM bezieht sich auf eine DICOM-Segmentierung. Schreiben Sie eine aus demselben Ergebnis und geben Sie ihre Datei an (segmentation=...), oder schreiben Sie .csv oder .xlsx.</translation>
    </message>
    <message>
        <source>{value}: the member {filename} {fault}. The zip was not opened.</source>
        <translation>{value}: Der Eintrag {filename} {fault}. Die Zip-Datei wurde nicht geöffnet.</translation>
    </message>
    <message>
        <source>{value}: the slices of the image are tilted (gantry tilt), which NIfTI files for ITK and 3D Slicer cannot hold. Write .seg.nrrd or .nrrd instead.</source>
        <translation>{value}: Die Schichten des Bildes sind gekippt (Gantry-Neigung), und das können NIfTI-Dateien für ITK und 3D Slicer nicht ausdrücken. Schreiben Sie .seg.nrrd oder .nrrd.</translation>
    </message>
    <message>
        <source>{value}: this file format cannot be written here. Use one of {suffixes}.</source>
        <translation>{value}: Dieses Dateiformat kann hier nicht geschrieben werden. Verwenden Sie eines von {suffixes}.</translation>
    </message>
    <message>
        <source>{value}: {error} Correct its spacing, or the transform above it.</source>
        <translation>{value}: {error} Berichtigen Sie den Voxelabstand oder die Transformation darüber.</translation>
    </message>
    <message>
        <source>{value}: {what} holds one class in each voxel, and classes that overlap are to be kept. Write .seg.nrrd, {rtstruct_suffix}, or a {dicom_suffix} of the kind binary (--dicom-seg binary); or let later classes win.</source>
        <translation>{value}: {what} enthält eine Klasse je Voxel, und überlappende Klassen sollen erhalten bleiben. Schreiben Sie .seg.nrrd, {rtstruct_suffix} oder eine {dicom_suffix} der Art binär (--dicom-seg binary); oder lassen Sie spätere Klassen gelten.</translation>
    </message>
    <message>
        <source>{value}: {what} needs the DICOM series that was segmented, for the patient, the study and the frame of reference. Give its folder (source=...), or write .seg.nrrd.</source>
        <translation>{value}: {what} braucht die DICOM-Serie, die segmentiert wurde, wegen Patient, Studie und Bezugsrahmen. Geben Sie ihren Ordner an (source=...), oder schreiben Sie .seg.nrrd.</translation>
    </message>
    <message>
        <source>{what} failed unexpectedly ({kind}). {details}</source>
        <translation>{what} schlug unerwartet fehl ({kind}). {details}</translation>
    </message>
    <message>
        <source>{what} is "{text}", expected a whole number from 0 to {largest}.</source>
        <translation>{what} ist „{text}“, erwartet wurde eine ganze Zahl von 0 bis {largest}.</translation>
    </message>
    <message>
        <source>{where} has no folds: it is a single network.</source>
        <translation>{where} hat keine Folds: Es ist ein einzelnes Netz.</translation>
    </message>
    <message>
        <source>{where} has the configuration {found}, not {wanted}.</source>
        <translation>{where} hat die Konfiguration {found}, nicht {wanted}.</translation>
    </message>
    <message>
        <source>{where} has the folds {found}; {chosen} was requested.</source>
        <translation>{where} hat die Folds {found}; verlangt wurde {chosen}.</translation>
    </message>
    <message>
        <source>{where} is missing: it has weights. Get it from where {model} is from.</source>
        <translation>{where} fehlt: Dort sind die Gewichte. Besorgen Sie die Datei von dort, wo {model} her ist.</translation>
    </message>
    <message>
        <source>{where} is not a usable model: {error}</source>
        <translation>{where} ist kein brauchbares Modell: {error}</translation>
    </message>
    <message>
        <source>{where}: mirroring axes {axes} are not axes of a patch with {dimension} dimensions.</source>
        <translation>{where}: Die Spiegelachsen {axes} sind keine Achsen eines Patches mit {dimension} Dimensionen.</translation>
    </message>
    <message>
        <source>{where}: the folds have different configurations: {trained}.</source>
        <translation>{where}: Die Folds haben verschiedene Konfigurationen: {trained}.</translation>
    </message>
    <message>
        <source>{where}: the weights have {size} bytes, but {model} declares {numbers}.</source>
        <translation>{where}: Die Gewichte haben {size} Bytes, aber {model} nennt {numbers}.</translation>
    </message>
    <message>
        <source>{where}: {value} was not found ({present}).</source>
        <translation>{where}: {value} wurde nicht gefunden ({present}).</translation>
    </message>
    <message>
        <source>{why}, so the token is in {file}, which only you can read.</source>
        <translation>{why}; deshalb steht das Token in {file}, was nur Sie lesen können.</translation>
    </message>
    <message>
        <source>{without} of {slices} slices have no {what}, so the place of the voxels is unknown: {without2}. Export the original series.</source>
        <translation>Bei {without} von {slices} Schichten fehlt {what}, daher ist der Ort der Voxel unbekannt: {without2}. Exportieren Sie die ursprüngliche Serie.</translation>
    </message>
</context>
<context>
    <name>ClassScaleSegPanel.panel</name>
    <message>
        <source>Between all classes</source>
        <translation>Zwischen allen Klassen</translation>
    </message>
    <message>
        <source>Nearest class</source>
        <translation>Nächstliegende Klasse</translation>
    </message>
    <message>
        <source>Segment the volume.</source>
        <translation>Den Bilddatensatz segmentieren.</translation>
    </message>
    <message>
        <source>The scene was closed, so the segmentation was stopped.</source>
        <translation>Die Szene wurde geschlossen, daher wurde die Segmentierung abgebrochen.</translation>
    </message>
</context>
<context>
    <name>archives.access</name>
    <message>
        <source>&amp;Address:</source>
        <translation>&amp;Adresse:</translation>
    </message>
    <message>
        <source>&amp;User:</source>
        <translation>&amp;Benutzer:</translation>
    </message>
    <message>
        <source>Certi&amp;ficate:</source>
        <translation>Zerti&amp;fikat:</translation>
    </message>
    <message>
        <source>Certificate file</source>
        <translation>Zertifikatsdatei</translation>
    </message>
    <message>
        <source>Choose the certificate file</source>
        <translation>Zertifikatsdatei wählen</translation>
    </message>
    <message>
        <source>Enter the address of the archive.</source>
        <translation>Geben Sie die Adresse des Archivs ein.</translation>
    </message>
    <message>
        <source>Enter user and password in their own fields, not in the address.</source>
        <translation>Geben Sie Benutzer und Passwort in ihre eigenen Felder ein, nicht in die Adresse.</translation>
    </message>
    <message>
        <source>Forget</source>
        <translation>Vergessen</translation>
    </message>
    <message>
        <source>Forget archive</source>
        <translation>Archiv vergessen</translation>
    </message>
    <message>
        <source>Forget this address and its password or token.</source>
        <translation>Diese Adresse und ihr Passwort oder Token vergessen.</translation>
    </message>
    <message>
        <source>Forget {address}, and its password or token?</source>
        <translation>{address} und das Passwort oder Token dazu vergessen?</translation>
    </message>
    <message>
        <source>In the keyring of the system; without one, in a file that only you can read. Not in the scene.</source>
        <translation>Im Schlüsselbund des Systems; ohne einen in einer Datei, die nur Sie lesen können. Nicht in der Szene.</translation>
    </message>
    <message>
        <source>Keep it on this computer</source>
        <translation>Auf diesem Computer aufbewahren</translation>
    </message>
    <message>
        <source>Pass&amp;word or token:</source>
        <translation>Pass&amp;wort oder Token:</translation>
    </message>
    <message>
        <source>The root of the archive's DICOMweb service. Its administrator knows it.</source>
        <translation>Die Wurzel des DICOMweb-Dienstes des Archivs. Wer das Archiv verwaltet, kennt sie.</translation>
    </message>
    <message>
        <source>as before</source>
        <translation>wie bisher</translation>
    </message>
    <message>
        <source>empty with a token</source>
        <translation>leer bei einem Token</translation>
    </message>
    <message>
        <source>if the archive asks for one</source>
        <translation>falls das Archiv danach fragt</translation>
    </message>
    <message>
        <source>if this computer does not trust it</source>
        <translation>wenn dieser Computer ihm nicht vertraut</translation>
    </message>
</context>
<context>
    <name>archives.criteria</name>
    <message>
        <source>&amp;Description:</source>
        <translation>Be&amp;schreibung:</translation>
    </message>
    <message>
        <source>&amp;Modality:</source>
        <translation>&amp;Modalität:</translation>
    </message>
    <message>
        <source>A part of the description of the study.</source>
        <translation>Ein Teil der Beschreibung der Studie.</translation>
    </message>
    <message>
        <source>Letter by letter; * stands for any letters.</source>
        <translation>Buchstabe für Buchstabe; * steht für beliebige Zeichen.</translation>
    </message>
    <message>
        <source>Parts of the name, in the order of the name: first the family name.</source>
        <translation>Teile des Namens, in seiner Reihenfolge: zuerst der Familienname.</translation>
    </message>
    <message>
        <source>Patient's &amp;ID:</source>
        <translation>Patienten-&amp;ID:</translation>
    </message>
    <message>
        <source>Patient's &amp;name:</source>
        <translation>&amp;Name:</translation>
    </message>
    <message>
        <source>Study f&amp;rom:</source>
        <translation>Studie &amp;von:</translation>
    </message>
    <message>
        <source>Study un&amp;til:</source>
        <translation>S&amp;tudie bis:</translation>
    </message>
    <message>
        <source>The search ends before it begins. Enter the earlier day first.</source>
        <translation>Die Suche endet, bevor sie beginnt. Geben Sie den früheren Tag zuerst ein.</translation>
    </message>
    <message>
        <source>{text} is not a day. Write it as 2026-01-31, or leave it out.</source>
        <translation>{text} ist kein Tag. Schreiben Sie ihn wie 31.01.2026, oder lassen Sie ihn weg.</translation>
    </message>
</context>
<context>
    <name>archives.dialog</name>
    <message>
        <source>Cancel</source>
        <translation>Abbrechen</translation>
    </message>
</context>
<context>
    <name>archives.fetching</name>
    <message>
        <source>Choose the folder</source>
        <translation>Ordner wählen</translation>
    </message>
    <message>
        <source>Choose the folder to which the series are fetched; give its whole path.</source>
        <translation>Wählen Sie den Ordner, in den die Serien geholt werden, mit seinem ganzen Pfad.</translation>
    </message>
    <message>
        <source>F&amp;older:</source>
        <translation>&amp;Ordner:</translation>
    </message>
    <message>
        <source>Fetch</source>
        <translation>Holen</translation>
    </message>
    <message>
        <source>Fetching series {number} of {count}: {done} images</source>
        <translation>Serie {number} von {count} wird geholt: {done} Bilder</translation>
    </message>
    <message>
        <source>Fetching series {number} of {count}: {done} of {total} images</source>
        <translation>Serie {number} von {count} wird geholt: {done} von {total} Bildern</translation>
    </message>
    <message>
        <source>Finds series in an archive (PACS) by DICOMweb, and fetches them. What you search for is sent to the archive. The files have names and dates of patients: choose a folder that others cannot read.</source>
        <translation>Findet Serien in einem Archiv (PACS) über DICOMweb und holt sie. Wonach Sie suchen, wird an das Archiv gesendet. In den Dateien stehen Namen und Daten von Patienten: Wählen Sie einen Ordner, den andere nicht lesen können.</translation>
    </message>
    <message>
        <source>Folder for the series</source>
        <translation>Ordner für die Serien</translation>
    </message>
    <message>
        <source>From an archive</source>
        <translation>Aus einem Archiv</translation>
    </message>
    <message>
        <source>Images</source>
        <translation>Bilder</translation>
    </message>
    <message>
        <source>Let the archive decompress images</source>
        <translation>Das Archiv die Bilder entpacken lassen</translation>
    </message>
    <message>
        <source>No study is like that. Some archives compare upper and lower case, and accents of names.</source>
        <translation>Keine Studie ist so. Manche Archive unterscheiden bei Namen Groß- und Kleinschreibung und Akzente.</translation>
    </message>
    <message>
        <source>Of {count} more, such as segmentations and reports, nothing can be segmented.</source>
        <translation>{count} weitere, wie Segmentierungen und Befunde, lassen sich nicht segmentieren.</translation>
    </message>
    <message>
        <source>One series is there, and in the list of volumes.</source>
        <translation>Eine Serie ist da und steht in der Liste der Bilddatensätze.</translation>
    </message>
    <message>
        <source>Patient</source>
        <translation>Patient</translation>
    </message>
    <message>
        <source>Search</source>
        <translation>Suchen</translation>
    </message>
    <message>
        <source>Search in what was found</source>
        <translation>Im Gefundenen suchen</translation>
    </message>
    <message>
        <source>Searching</source>
        <translation>Suche läuft</translation>
    </message>
    <message>
        <source>Series</source>
        <translation>Serie</translation>
    </message>
    <message>
        <source>Starting</source>
        <translation>Start läuft</translation>
    </message>
    <message>
        <source>State</source>
        <translation>Stand</translation>
    </message>
    <message>
        <source>Study</source>
        <translation>Studie</translation>
    </message>
    <message>
        <source>There are {count} more messages; the states of the series are in the table.</source>
        <translation>Es gibt {count} weitere Meldungen; die Zustände der Serien stehen in der Tabelle.</translation>
    </message>
    <message>
        <source>What has arrived is kept: to go on, fetch the same series to the same folder.</source>
        <translation>Was angekommen ist, bleibt erhalten: Um fortzufahren, holen Sie dieselben Serien in denselben Ordner.</translation>
    </message>
    <message>
        <source>fetched</source>
        <translation>geholt</translation>
    </message>
    <message>
        <source>fetching</source>
        <translation>wird geholt</translation>
    </message>
    <message>
        <source>incomplete</source>
        <translation>unvollständig</translation>
    </message>
    <message>
        <source>not fetched</source>
        <translation>nicht geholt</translation>
    </message>
    <message>
        <source>waiting</source>
        <translation>wartet</translation>
    </message>
    <message>
        <source>without description</source>
        <translation>ohne Beschreibung</translation>
    </message>
    <message>
        <source>without name</source>
        <translation>ohne Namen</translation>
    </message>
    <message>
        <source>{count} series are there, and in the list of volumes.</source>
        <translation>{count} Serien sind da und stehen in der Liste der Bilddatensätze.</translation>
    </message>
    <message>
        <source>{count} series found. Tick those that you want.</source>
        <translation>{count} Serien gefunden. Haken Sie an, welche Sie möchten.</translation>
    </message>
    <message>
        <source>{name}: {fault}</source>
        <translation>{name}: {fault}</translation>
    </message>
</context>
<context>
    <name>archives.known</name>
    <message>
        <source>Connection that is not encrypted</source>
        <translation>Unverschlüsselte Verbindung</translation>
    </message>
    <message>
        <source>The connection is NOT encrypted: others in the network could read all of it, and use the password.</source>
        <translation>Die Verbindung ist NICHT verschlüsselt: Andere im Netz könnten alles mitlesen und das Passwort verwenden.</translation>
    </message>
    <message>
        <source>Use this address, now and in future?</source>
        <translation>Diese Adresse verwenden, jetzt und künftig?</translation>
    </message>
    <message>
        <source>What you search for, images and the password or token are sent between this computer and:</source>
        <translation>Wonach Sie suchen, Bilder und das Passwort oder Token gehen zwischen diesem Computer und folgender Adresse hin und her:</translation>
    </message>
</context>
<context>
    <name>archives.sending</name>
    <message>
        <source>DICOM segmentation</source>
        <translation>DICOM-Segmentierung</translation>
    </message>
    <message>
        <source>Patient</source>
        <translation>Patient</translation>
    </message>
    <message>
        <source>RT structure set</source>
        <translation>RT-Strukturdatensatz</translation>
    </message>
    <message>
        <source>Report with the volumes, which refers to the DICOM segmentation</source>
        <translation>Bericht mit den Volumina, der auf die DICOM-Segmentierung verweist</translation>
    </message>
    <message>
        <source>Send to an archive</source>
        <translation>An ein Archiv senden</translation>
    </message>
    <message>
        <source>Send to {address}?</source>
        <translation>An {address} senden?</translation>
    </message>
    <message>
        <source>Send...</source>
        <translation>Senden...</translation>
    </message>
    <message>
        <source>Sending</source>
        <translation>Wird gesendet</translation>
    </message>
    <message>
        <source>Sends {name} as DICOM objects to an archive (PACS), by DICOMweb. They have name and ID of the patient, and belong to the study of the series that was segmented.</source>
        <translation>Sendet {name} als DICOM-Objekte an ein Archiv (PACS), über DICOMweb. Sie tragen Namen und ID des Patienten und gehören zur Studie der Serie, die segmentiert wurde.</translation>
    </message>
    <message>
        <source>Study</source>
        <translation>Studie</translation>
    </message>
    <message>
        <source>The DICOM objects cannot be written to {folder} ({reason}).</source>
        <translation>Die DICOM-Objekte lassen sich nicht nach {folder} schreiben ({reason}).</translation>
    </message>
    <message>
        <source>There is not enough memory to write the DICOM objects.</source>
        <translation>Der Speicher reicht nicht, um die DICOM-Objekte zu schreiben.</translation>
    </message>
    <message>
        <source>What was sent before may be stored: look in the archive before you send again.</source>
        <translation>Was davor gesendet wurde, kann gespeichert sein: Sehen Sie im Archiv nach, bevor Sie noch einmal senden.</translation>
    </message>
    <message>
        <source>not sent</source>
        <translation>nicht gesendet</translation>
    </message>
    <message>
        <source>not stated</source>
        <translation>nicht angegeben</translation>
    </message>
    <message>
        <source>perhaps stored</source>
        <translation>vielleicht gespeichert</translation>
    </message>
    <message>
        <source>refused</source>
        <translation>abgelehnt</translation>
    </message>
    <message>
        <source>stored</source>
        <translation>gespeichert</translation>
    </message>
    <message>
        <source>stored, with changes or doubts</source>
        <translation>gespeichert, mit Änderungen oder Zweifeln</translation>
    </message>
    <message>
        <source>{title}: {value}</source>
        <translation>{title}: {value}</translation>
    </message>
</context>
<context>
    <name>archives.watching</name>
    <message>
        <source>&amp;Description:</source>
        <translation>Be&amp;schreibung:</translation>
    </message>
    <message>
        <source>&amp;Modality:</source>
        <translation>&amp;Modalität:</translation>
    </message>
    <message>
        <source>A part of the description of the series, in any case.</source>
        <translation>Ein Teil der Beschreibung der Serie; Groß- und Kleinschreibung ist gleich.</translation>
    </message>
    <message>
        <source>An archive is watched. {state}</source>
        <translation>Ein Archiv wird beobachtet. {state}</translation>
    </message>
    <message>
        <source>At work on {series} since {time}.</source>
        <translation>In Arbeit: {series}, seit {time}.</translation>
    </message>
    <message>
        <source>Choose a modality, such as CT.</source>
        <translation>Wählen Sie eine Modalität, etwa CT.</translation>
    </message>
    <message>
        <source>Choose the folder</source>
        <translation>Ordner wählen</translation>
    </message>
    <message>
        <source>Choose the folder for the results; give its whole path.</source>
        <translation>Wählen Sie den Ordner für die Ergebnisse, mit seinem ganzen Pfad.</translation>
    </message>
    <message>
        <source>Description</source>
        <translation>Beschreibung</translation>
    </message>
    <message>
        <source>F&amp;older:</source>
        <translation>&amp;Ordner:</translation>
    </message>
    <message>
        <source>Folder for the results</source>
        <translation>Ordner für die Ergebnisse</translation>
    </message>
    <message>
        <source>For the results, and for what is done: the same folder goes on there.</source>
        <translation>Für die Ergebnisse und für das, was erledigt ist: Mit demselben Ordner geht es dort weiter.</translation>
    </message>
    <message>
        <source>Images, at &amp;least:</source>
        <translation>Bi&amp;lder, mindestens:</translation>
    </message>
    <message>
        <source>Last look: {time}.</source>
        <translation>Zuletzt nachgesehen: {time}.</translation>
    </message>
    <message>
        <source>Looks every minute for new series in an archive (PACS), and segments each with the model and the device that the panel shows now. This goes on until you press Stop or leave Slicer, also if you close this window. The files have names and dates of patients: choose a folder that others cannot read.</source>
        <translation>Sucht jede Minute in einem Archiv (PACS) nach neuen Serien und segmentiert jede mit dem Modell und dem Gerät, die das Modul jetzt zeigt. Das geht weiter, bis Sie auf Anhalten drücken oder Slicer verlassen, auch wenn Sie dieses Fenster schließen. In den Dateien stehen Namen und Daten von Patienten: Wählen Sie einen Ordner, den andere nicht lesen können.</translation>
    </message>
    <message>
        <source>Modality</source>
        <translation>Modalität</translation>
    </message>
    <message>
        <source>Reason</source>
        <translation>Grund</translation>
    </message>
    <message>
        <source>Search in what has failed</source>
        <translation>In dem suchen, was fehlgeschlagen ist</translation>
    </message>
    <message>
        <source>Send the results to this archive</source>
        <translation>Die Ergebnisse an dieses Archiv senden</translation>
    </message>
    <message>
        <source>Send the results to {address}?</source>
        <translation>Die Ergebnisse an {address} senden?</translation>
    </message>
    <message>
        <source>Series</source>
        <translation>Serie</translation>
    </message>
    <message>
        <source>Series with fewer images are passed over.</source>
        <translation>Serien mit weniger Bildern werden übergangen.</translation>
    </message>
    <message>
        <source>Start</source>
        <translation>Start</translation>
    </message>
    <message>
        <source>Starting</source>
        <translation>Start läuft</translation>
    </message>
    <message>
        <source>State</source>
        <translation>Stand</translation>
    </message>
    <message>
        <source>Stop</source>
        <translation>Anhalten</translation>
    </message>
    <message>
        <source>Stopped. To go on, start with the same folder.</source>
        <translation>Angehalten. Um fortzufahren, starten Sie mit demselben Ordner.</translation>
    </message>
    <message>
        <source>Studies</source>
        <translation>Studien</translation>
    </message>
    <message>
        <source>Studies of the last &amp;days:</source>
        <translation>Studien der letzten &amp;Tage:</translation>
    </message>
    <message>
        <source>The least number of images must be a whole number, such as 10.</source>
        <translation>Die Mindestzahl der Bilder muss eine ganze Zahl sein, etwa 10.</translation>
    </message>
    <message>
        <source>The results of all such series are sent WITHOUT a further question, and without anybody having looked at them, until you press Stop or leave Slicer.</source>
        <translation>Die Ergebnisse aller solchen Serien werden OHNE weitere Frage gesendet, und ohne dass jemand sie angesehen hat, bis Sie auf Anhalten drücken oder Slicer verlassen.</translation>
    </message>
    <message>
        <source>Time</source>
        <translation>Zeit</translation>
    </message>
    <message>
        <source>To do: {due}, arriving: {arriving}.</source>
        <translation>Zu tun: {due}, im Eintreffen: {arriving}.</translation>
    </message>
    <message>
        <source>Watch an archive</source>
        <translation>Ein Archiv beobachten</translation>
    </message>
    <message>
        <source>all</source>
        <translation>alle</translation>
    </message>
    <message>
        <source>failed</source>
        <translation>fehlgeschlagen</translation>
    </message>
    <message>
        <source>not sent</source>
        <translation>nicht gesendet</translation>
    </message>
    <message>
        <source>today</source>
        <translation>heute</translation>
    </message>
    <message>
        <source>{done} done, {left} left out, {unsent} not sent, {failed} failed.</source>
        <translation>{done} erledigt, {left} ausgelassen, {unsent} nicht gesendet, {failed} fehlgeschlagen.</translation>
    </message>
    <message>
        <source>{title}: {value}</source>
        <translation>{title}: {value}</translation>
    </message>
</context>
<context>
    <name>inputs.channel_rows</name>
    <message>
        <source>V&amp;olume:</source>
        <translation>Vol&amp;umen:</translation>
    </message>
    <message>
        <source>{channel}:</source>
        <translation>{channel}:</translation>
    </message>
</context>
<context>
    <name>inputs.channel_texts</name>
    <message>
        <source>No volume is called {channel}.</source>
        <translation>Kein Bilddatensatz heißt {channel}.</translation>
    </message>
    <message>
        <source>The name {channel} does not say which volume the channel is. Select its volumes by hand.</source>
        <translation>Der Name {channel} sagt nicht, welcher Bilddatensatz der Kanal ist. Wählen Sie die Bilddatensätze von Hand aus.</translation>
    </message>
    <message>
        <source>Two volumes could be {channel}: {first} and {second}. Choose one.</source>
        <translation>Zwei Bilddatensätze kommen für {channel} infrage: {first} und {second}. Wählen Sie einen aus.</translation>
    </message>
    <message>
        <source>{count} volumes could be {channel}: {names}. Choose one.</source>
        <translation>{count} Bilddatensätze kommen für {channel} infrage: {names}. Wählen Sie einen aus.</translation>
    </message>
    <message>
        <source>{volume} could be {channel}. Choose it if it is.</source>
        <translation>{volume} könnte {channel} sein. Wählen Sie es aus, wenn das stimmt.</translation>
    </message>
    <message>
        <source>{volume} is called like {other}, but it is selected for {channel}.</source>
        <translation>{volume} heißt wie {other}, ist aber für {channel} ausgewählt.</translation>
    </message>
</context>
<context>
    <name>inputs.dicom_series</name>
    <message>
        <source>Images</source>
        <translation>Bilder</translation>
    </message>
    <message>
        <source>Patient</source>
        <translation>Patient</translation>
    </message>
    <message>
        <source>Search by patient, date or description</source>
        <translation>Nach Patient, Datum oder Beschreibung suchen</translation>
    </message>
    <message>
        <source>Series</source>
        <translation>Serie</translation>
    </message>
    <message>
        <source>Series of the DICOM database</source>
        <translation>Serien der DICOM-Datenbank</translation>
    </message>
    <message>
        <source>Study</source>
        <translation>Studie</translation>
    </message>
    <message>
        <source>without description</source>
        <translation>ohne Beschreibung</translation>
    </message>
    <message>
        <source>{name} could not be loaded ({reason}).</source>
        <translation>{name} konnte nicht geladen werden ({reason}).</translation>
    </message>
    <message>
        <source>{name} could not be loaded as a volume. Load it in the module DICOM, and add the volume that you get.</source>
        <translation>{name} konnte nicht als Bilddatensatz geladen werden. Laden Sie die Serie im Modul DICOM und fügen Sie den Bilddatensatz hinzu, den Sie erhalten.</translation>
    </message>
</context>
<context>
    <name>inputs.image_files</name>
    <message>
        <source>Folder of images</source>
        <translation>Ordner mit Bildern</translation>
    </message>
    <message>
        <source>{folder} has more than {count} images, of which the first are added. Choose folders below it.</source>
        <translation>{folder} enthält mehr als {count} Bilder; hinzugefügt sind die ersten davon. Wählen Sie die Ordner darunter.</translation>
    </message>
    <message>
        <source>{folder} has no image: neither files such as .nii.gz and .nrrd, nor folders with DICOM series.</source>
        <translation>{folder} enthält kein Bild: weder Dateien wie .nii.gz und .nrrd noch Ordner mit DICOM-Serien.</translation>
    </message>
</context>
<context>
    <name>inputs.queued_case</name>
    <message>
        <source>{name} was removed from the scene.</source>
        <translation>{name} wurde aus der Szene entfernt.</translation>
    </message>
</context>
<context>
    <name>install.dialog</name>
    <message>
        <source>About {size} MB are downloaded; it takes {minutes} min.</source>
        <translation>Etwa {size} MB werden heruntergeladen; das dauert {minutes} min.</translation>
    </message>
    <message>
        <source>Folder with wheels</source>
        <translation>Ordner mit Wheels</translation>
    </message>
    <message>
        <source>From a folder...</source>
        <translation>Aus einem Ordner...</translation>
    </message>
    <message>
        <source>Install</source>
        <translation>Installieren</translation>
    </message>
    <message>
        <source>Python packages</source>
        <translation>Python-Pakete</translation>
    </message>
    <message>
        <source>Slicer's own numpy, SimpleITK and requests are not replaced.</source>
        <translation>numpy, SimpleITK und requests von Slicer selbst werden nicht ersetzt.</translation>
    </message>
    <message>
        <source>This module needs Python packages that Slicer lacks:</source>
        <translation>Dieses Modul braucht Python-Pakete, die in Slicer fehlen:</translation>
    </message>
    <message>
        <source>Try again</source>
        <translation>Noch einmal versuchen</translation>
    </message>
    <message>
        <source>Without a network, choose a folder with wheels of the packages; what it lacks is named before anything is installed.</source>
        <translation>Ohne Netzverbindung wählen Sie einen Ordner mit Wheels der Pakete; was darin fehlt, wird genannt, bevor etwas installiert wird.</translation>
    </message>
    <message>
        <source>torch is installed by the extension PyTorch, in the build for this computer's GPU.</source>
        <translation>torch wird von der Erweiterung PyTorch installiert, passend zur GPU dieses Rechners.</translation>
    </message>
    <message>
        <source>torch is installed by the extension PyTorch, which is missing too: it is installed first, and Slicer restarts. Save your scene before.</source>
        <translation>torch wird von der Erweiterung PyTorch installiert, die ebenfalls fehlt: Sie wird zuerst installiert, und Slicer startet neu. Speichern Sie vorher Ihre Szene.</translation>
    </message>
    <message>
        <source>{low} to {high}</source>
        <translation>{low} bis {high}</translation>
    </message>
</context>
<context>
    <name>install.failures</name>
    <message>
        <source>A package has no build for this Python and system: update Slicer to a current version, and try again.</source>
        <translation>Ein Paket gibt es nicht für dieses Python und System: Aktualisieren Sie Slicer auf eine neuere Version und versuchen Sie es noch einmal.</translation>
    </message>
    <message>
        <source>A proxy is between this computer and the network: set the environment variable HTTPS_PROXY to http://USER:PASSWORD@HOST:PORT, restart Slicer, and try again. Or install from a folder of wheels.</source>
        <translation>Zwischen diesem Rechner und dem Netz steht ein Proxy: Setzen Sie die Umgebungsvariable HTTPS_PROXY auf http://USER:PASSWORD@HOST:PORT, starten Sie Slicer neu und versuchen Sie es noch einmal. Oder installieren Sie aus einem Ordner mit Wheels.</translation>
    </message>
    <message>
        <source>Archives cannot be asked without these Python packages: {packages}. To install them, press the button again.</source>
        <translation>Ohne diese Python-Pakete können Archive nicht gefragt werden: {packages}. Um sie zu installieren, drücken Sie die Schaltfläche noch einmal.</translation>
    </message>
    <message>
        <source>DICOM segmentations cannot be saved without these Python packages: {packages}. To install them, save again.</source>
        <translation>Ohne diese Python-Pakete lassen sich keine DICOM-Segmentierungen speichern: {packages}. Um sie zu installieren, speichern Sie noch einmal.</translation>
    </message>
    <message>
        <source>Excel workbooks cannot be saved without these Python packages: {packages}. To install them, save again. Or save as .csv.</source>
        <translation>Ohne diese Python-Pakete lassen sich keine Excel-Arbeitsmappen speichern: {packages}. Um sie zu installieren, speichern Sie noch einmal. Oder speichern Sie als .csv.</translation>
    </message>
    <message>
        <source>Models cannot be compared without these Python packages: {packages}. To install them, press Compare again.</source>
        <translation>Ohne diese Python-Pakete lassen sich Modelle nicht vergleichen: {packages}. Drücken Sie noch einmal Vergleichen, um sie zu installieren.</translation>
    </message>
    <message>
        <source>Segmentations cannot be compared without these Python packages: {packages}. To install them, press the button again.</source>
        <translation>Segmentierungen können ohne diese Python-Pakete nicht verglichen werden: {packages}. Um sie zu installieren, drücken Sie den Knopf noch einmal.</translation>
    </message>
    <message>
        <source>The Python packages could not be installed: {reason}. Slicer's own packages were not changed. {step} To undo the installation, type slicer.util.pip_uninstall("{packages}") into the Python console.</source>
        <translation>Die Python-Pakete konnten nicht installiert werden: {reason}. Die Pakete von Slicer selbst wurden nicht verändert. {step} Um die Installation rückgängig zu machen, geben Sie slicer.util.pip_uninstall("{packages}") in die Python-Konsole ein.</translation>
    </message>
    <message>
        <source>The certificate of the server is not known here, as behind a proxy that inspects traffic: set the environment variable PIP_CERT to the file of its certificate, restart Slicer, and try again.</source>
        <translation>Das Zertifikat des Servers ist hier nicht bekannt, etwa hinter einem Proxy, der den Datenverkehr prüft: Setzen Sie die Umgebungsvariable PIP_CERT auf die Datei seines Zertifikats, starten Sie Slicer neu und versuchen Sie es noch einmal.</translation>
    </message>
    <message>
        <source>The disk is full: make room, and try again.</source>
        <translation>Die Festplatte ist voll: Schaffen Sie Platz und versuchen Sie es noch einmal.</translation>
    </message>
    <message>
        <source>The folder of Slicer cannot be written: install Slicer in a folder of your own, or ask who administers this computer to install the packages.</source>
        <translation>In den Ordner von Slicer kann nicht geschrieben werden: Installieren Sie Slicer in einen eigenen Ordner, oder lassen Sie die Pakete von der Person installieren, die diesen Rechner verwaltet.</translation>
    </message>
    <message>
        <source>The module cannot segment without these Python packages: {packages}. To install them, press Apply again.</source>
        <translation>Ohne diese Python-Pakete kann das Modul nicht segmentieren: {packages}. Um sie zu installieren, drücken Sie noch einmal „Anwenden“.</translation>
    </message>
    <message>
        <source>The module cannot train without these Python packages: {packages}. To install them, press Start again.</source>
        <translation>Ohne diese Python-Pakete kann das Modul nicht trainieren: {packages}. Drücken Sie noch einmal Start, um sie zu installieren.</translation>
    </message>
    <message>
        <source>There is no network: connect this computer and try again, or install from a folder of wheels.</source>
        <translation>Es gibt keine Netzverbindung: Verbinden Sie diesen Rechner und versuchen Sie es noch einmal, oder installieren Sie aus einem Ordner mit Wheels.</translation>
    </message>
    <message>
        <source>Try again: what has arrived is kept.</source>
        <translation>Versuchen Sie es noch einmal: Was angekommen ist, bleibt erhalten.</translation>
    </message>
</context>
<context>
    <name>install.missing</name>
    <message>
        <source>PyTorch {found} is installed, but {wanted} is needed. Uninstall it in the module PyTorch, restart Slicer, and press Apply again.</source>
        <translation>PyTorch {found} ist installiert, benötigt wird {wanted}. Deinstallieren Sie es im Modul PyTorch, starten Sie Slicer neu und drücken Sie noch einmal „Anwenden“.</translation>
    </message>
    <message>
        <source>Python packages are missing: {packages}. To install them, press Apply in the module ClassScaleSeg, or call ClassScaleSegLogic().installDependencies().</source>
        <translation>Python-Pakete fehlen: {packages}. Um sie zu installieren, drücken Sie „Anwenden“ im Modul ClassScaleSeg oder rufen Sie ClassScaleSegLogic().installDependencies() auf.</translation>
    </message>
</context>
<context>
    <name>install.packages</name>
    <message>
        <source>Extension PyTorch</source>
        <translation>Erweiterung PyTorch</translation>
    </message>
    <message>
        <source>Install the extension PyTorch in the Extensions Manager, restart Slicer, and press Apply again.</source>
        <translation>Installieren Sie die Erweiterung PyTorch im Erweiterungsmanager, starten Sie Slicer neu und drücken Sie noch einmal „Anwenden“.</translation>
    </message>
    <message>
        <source>PyTorch was not installed. The module cannot segment without it. To install it, press Apply again.</source>
        <translation>PyTorch wurde nicht installiert. Ohne PyTorch kann das Modul nicht segmentieren. Um es zu installieren, drücken Sie noch einmal „Anwenden“.</translation>
    </message>
    <message>
        <source>Python packages</source>
        <translation>Python-Pakete</translation>
    </message>
    <message>
        <source>Source archives, as of {packages}, are not enough.</source>
        <translation>Quellarchive, wie von {packages}, genügen nicht.</translation>
    </message>
    <message>
        <source>The extension PyTorch could not be installed.</source>
        <translation>Die Erweiterung PyTorch konnte nicht installiert werden.</translation>
    </message>
    <message>
        <source>The extension PyTorch is installed. Restart Slicer, and press Apply again.</source>
        <translation>Die Erweiterung PyTorch ist installiert. Starten Sie Slicer neu und drücken Sie noch einmal „Anwenden“.</translation>
    </message>
    <message>
        <source>This module needs the extension PyTorch. Install it now and restart Slicer? If your scene is not saved, press Cancel and save it first.</source>
        <translation>Dieses Modul braucht die Erweiterung PyTorch. Jetzt installieren und Slicer neu starten? Ist Ihre Szene nicht gespeichert, brechen Sie ab und speichern Sie sie zuerst.</translation>
    </message>
    <message>
        <source>This module needs these Python packages. Install them into Slicer?
{packages}</source>
        <translation>Dieses Modul braucht diese Python-Pakete. In Slicer installieren?
{packages}</translation>
    </message>
    <message>
        <source>{folder} has {free} GB free, and the packages need about {need} GB. Make room there, and try again.</source>
        <translation>{folder} hat {free} GB frei, und die Pakete brauchen etwa {need} GB. Schaffen Sie dort Platz und versuchen Sie es noch einmal.</translation>
    </message>
    <message>
        <source>{folder} lacks wheels for this Python {python} on {system}: {packages}. Nothing was installed. On a computer with a network, the same system and the same Python, type: pip wheel -w FOLDER {wanted}</source>
        <translation>In {folder} fehlen Wheels für dieses Python {python} unter {system}: {packages}. Nichts wurde installiert. Geben Sie auf einem Rechner mit Netzverbindung, demselben System und demselben Python ein: pip wheel -w FOLDER {wanted}</translation>
    </message>
    <message>
        <source>{packages} cannot be imported after the installation</source>
        <translation>{packages} lässt sich nach der Installation nicht importieren</translation>
    </message>
</context>
<context>
    <name>models.card</name>
    <message>
        <source>Model card</source>
        <translation>Modellkarte</translation>
    </message>
    <message>
        <source>This model has no model card, or it is not downloaded yet.</source>
        <translation>Dieses Modell hat keine Modellkarte oder ist noch nicht heruntergeladen.</translation>
    </message>
</context>
<context>
    <name>models.chooser</name>
    <message>
        <source>Add model</source>
        <translation>Modell hinzufügen</translation>
    </message>
    <message>
        <source>Add model file...</source>
        <translation>Modelldatei hinzufügen...</translation>
    </message>
    <message>
        <source>Add model folder...</source>
        <translation>Modellordner hinzufügen...</translation>
    </message>
    <message>
        <source>Add model from web address...</source>
        <translation>Modell von Webadresse hinzufügen...</translation>
    </message>
    <message>
        <source>Delete the files of {name} ({size})?</source>
        <translation>Die Dateien von {name} löschen ({size})?</translation>
    </message>
    <message>
        <source>Model bundles and exported models</source>
        <translation>Modellpakete und exportierte Modelle</translation>
    </message>
    <message>
        <source>Model card...</source>
        <translation>Modellkarte...</translation>
    </message>
    <message>
        <source>Model catalogue</source>
        <translation>Modellkatalog</translation>
    </message>
    <message>
        <source>Model file</source>
        <translation>Modelldatei</translation>
    </message>
    <message>
        <source>Model folder</source>
        <translation>Modellordner</translation>
    </message>
    <message>
        <source>Remove model</source>
        <translation>Modell entfernen</translation>
    </message>
    <message>
        <source>Remove this model...</source>
        <translation>Dieses Modell entfernen...</translation>
    </message>
    <message>
        <source>Remove {name} from the list and delete its download ({size})?</source>
        <translation>{name} aus der Liste entfernen und den Download löschen ({size})?</translation>
    </message>
    <message>
        <source>Remove {name} from the list? Its files are not deleted.</source>
        <translation>{name} aus der Liste entfernen? Die Dateien werden nicht gelöscht.</translation>
    </message>
    <message>
        <source>Show model folder</source>
        <translation>Modellordner zeigen</translation>
    </message>
    <message>
        <source>The device is a server, which has its own models. To add one here, select another device first.</source>
        <translation>Das Gerät ist ein Server, der eigene Modelle hat. Um hier eines hinzuzufügen, wählen Sie zuerst ein anderes Gerät.</translation>
    </message>
    <message>
        <source>This model cannot be added</source>
        <translation>Dieses Modell kann nicht hinzugefügt werden</translation>
    </message>
    <message>
        <source>This model cannot be removed</source>
        <translation>Dieses Modell kann nicht entfernt werden</translation>
    </message>
    <message>
        <source>Web address (URL) of a zip file:</source>
        <translation>Webadresse (URL) einer Zip-Datei:</translation>
    </message>
    <message>
        <source>as the server does</source>
        <translation>wie der Server</translation>
    </message>
    <message>
        <source>{name} (not downloaded)</source>
        <translation>{name} (nicht geladen)</translation>
    </message>
</context>
<context>
    <name>models.class_list</name>
    <message>
        <source>&amp;None</source>
        <translation>&amp;Keine</translation>
    </message>
    <message>
        <source>&amp;Presets</source>
        <translation>&amp;Vorlage</translation>
    </message>
    <message>
        <source>A&amp;ll</source>
        <translation>All&amp;e</translation>
    </message>
    <message>
        <source>Class</source>
        <translation>Klasse</translation>
    </message>
    <message>
        <source>Code</source>
        <translation>Code</translation>
    </message>
    <message>
        <source>Delete</source>
        <translation>Löschen</translation>
    </message>
    <message>
        <source>Gro&amp;ups</source>
        <translation>&amp;Gruppe</translation>
    </message>
    <message>
        <source>Group</source>
        <translation>Gruppe</translation>
    </message>
    <message>
        <source>Model</source>
        <translation>Modell</translation>
    </message>
    <message>
        <source>Name:</source>
        <translation>Name:</translation>
    </message>
    <message>
        <source>Only</source>
        <translation>Nur</translation>
    </message>
    <message>
        <source>Preset</source>
        <translation>Vorlage</translation>
    </message>
    <message>
        <source>Save preset</source>
        <translation>Vorlage speichern</translation>
    </message>
    <message>
        <source>Save the ticked classes, or tick classes that you saved.</source>
        <translation>Die angehakten Klassen speichern oder gespeicherte Klassen anhaken.</translation>
    </message>
    <message>
        <source>Save ticked classes...</source>
        <translation>Angehakte Klassen speichern...</translation>
    </message>
    <message>
        <source>Search by name, code or group</source>
        <translation>Nach Name, Code, Gruppe suchen</translation>
    </message>
    <message>
        <source>This model does not have {count} of the classes in the preset.</source>
        <translation>{count} Klassen der Vorlage hat dieses Modell nicht.</translation>
    </message>
    <message>
        <source>Tick all classes that the search shows.</source>
        <translation>Alle Klassen anhaken, die die Suche zeigt.</translation>
    </message>
    <message>
        <source>Tick or untick all classes of a group.</source>
        <translation>Alle Klassen einer Gruppe anhaken oder abwählen.</translation>
    </message>
    <message>
        <source>Untick all classes that the search shows.</source>
        <translation>Alle Klassen abwählen, die die Suche zeigt.</translation>
    </message>
    <message>
        <source>{group} ({count})</source>
        <translation>{group} ({count})</translation>
    </message>
    <message>
        <source>{ticked} of {all}</source>
        <translation>{ticked}/{all}</translation>
    </message>
</context>
<context>
    <name>models.download</name>
    <message>
        <source>Cancel</source>
        <translation>Abbrechen</translation>
    </message>
    <message>
        <source>Download failed</source>
        <translation>Download fehlgeschlagen</translation>
    </message>
    <message>
        <source>Download model</source>
        <translation>Modell herunterladen</translation>
    </message>
    <message>
        <source>Downloading {name}</source>
        <translation>{name} wird heruntergeladen</translation>
    </message>
    <message>
        <source>It will be kept in {folder} until you remove it.</source>
        <translation>Es bleibt in {folder}, bis Sie es entfernen.</translation>
    </message>
    <message>
        <source>Licence: {licence}</source>
        <translation>Lizenz: {licence}</translation>
    </message>
    <message>
        <source>No information about your images is sent.</source>
        <translation>Über Ihre Bilder wird nichts gesendet.</translation>
    </message>
    <message>
        <source>not stated</source>
        <translation>nicht angegeben</translation>
    </message>
    <message>
        <source>unknown size</source>
        <translation>unbekannte Größe</translation>
    </message>
    <message>
        <source>{name} will be downloaded ({size}) from:</source>
        <translation>{name} wird heruntergeladen ({size}) von:</translation>
    </message>
    <message>
        <source>{size} MB</source>
        <translation>{size} MB</translation>
    </message>
</context>
<context>
    <name>models.facts</name>
    <message>
        <source>licence {licence}</source>
        <translation>Lizenz {licence}</translation>
    </message>
    <message>
        <source>not stated</source>
        <translation>nicht angegeben</translation>
    </message>
    <message>
        <source>{count} classes</source>
        <translation>{count} Klassen</translation>
    </message>
    <message>
        <source>{spacing} mm</source>
        <translation>{spacing} mm</translation>
    </message>
</context>
<context>
    <name>models.locate_list</name>
    <message>
        <source>Automatic: {model}</source>
        <translation>Automatisch: {model}</translation>
    </message>
    <message>
        <source>The model {model}, which is to locate classes, is not on this computer. Select another ("Advanced").</source>
        <translation>Das Modell {model}, das Klassen finden soll, ist nicht auf diesem Rechner. Wählen Sie ein anderes („Erweitert“).</translation>
    </message>
    <message>
        <source>Whole image</source>
        <translation>Ganzes Bild</translation>
    </message>
    <message>
        <source>{classes} and {count} more</source>
        <translation>{classes} und {count} weitere</translation>
    </message>
    <message>
        <source>{model} cannot locate {classes}. Untick them, or select another model ("Advanced").</source>
        <translation>{model} kann {classes} nicht finden. Wählen Sie diese ab oder ein anderes Modell aus („Erweitert“).</translation>
    </message>
    <message>
        <source>{model} needs other images, so it cannot locate the classes. Select another model ("Advanced").</source>
        <translation>{model} braucht andere Bilder und kann die Klassen deshalb nicht finden. Wählen Sie ein anderes Modell („Erweitert“).</translation>
    </message>
    <message>
        <source>{name} looks only where the model {model} finds structures, which is not on this computer. Select that one and press "Download...", or let this one see the whole image ("Locate with" under "Advanced").</source>
        <translation>{name} sieht nur dort nach, wo das Modell {model} Strukturen findet, und jenes ist nicht auf diesem Rechner. Wählen Sie es aus und drücken Sie „Laden...“, oder lassen Sie dieses das ganze Bild sehen („Finden mit“ unter „Erweitert“).</translation>
    </message>
    <message>
        <source>{server} does not offer the model {model}, which is to locate classes. Select another ("Advanced").</source>
        <translation>{server} bietet das Modell {model} nicht an, das Klassen finden soll. Wählen Sie ein anderes („Erweitert“).</translation>
    </message>
</context>
<context>
    <name>models.model_list</name>
    <message>
        <source>Keep both, in layers</source>
        <translation>Beide behalten, in Ebenen</translation>
    </message>
    <message>
        <source>No other model is on this computer.</source>
        <translation>Kein anderes Modell ist auf diesem Rechner.</translation>
    </message>
    <message>
        <source>The later model gets the voxel</source>
        <translation>Das spätere Modell gilt</translation>
    </message>
    <message>
        <source>{number}. {name}</source>
        <translation>{number}. {name}</translation>
    </message>
</context>
<context>
    <name>results.case_comparison</name>
    <message>
        <source>A segmentation was removed, so the comparison is gone.</source>
        <translation>Eine Segmentierung wurde entfernt, daher ist der Vergleich weg.</translation>
    </message>
    <message>
        <source>Cancel</source>
        <translation>Abbrechen</translation>
    </message>
    <message>
        <source>Case</source>
        <translation>Fall</translation>
    </message>
    <message>
        <source>Cases that lack structures of other results, whose Dice is therefore 0: {count}.</source>
        <translation>Fälle, denen Strukturen anderer Ergebnisse fehlen, deren Dice daher 0 ist: {count}.</translation>
    </message>
    <message>
        <source>Close</source>
        <translation>Schließen</translation>
    </message>
    <message>
        <source>Compare</source>
        <translation>Vergleichen</translation>
    </message>
    <message>
        <source>Compare cases</source>
        <translation>Fälle vergleichen</translation>
    </message>
    <message>
        <source>Compares each result with its reference: the only other segmentation of the same volume, or else the only one that is called like the volume. To choose another reference, click a row.</source>
        <translation>Vergleicht jedes Ergebnis mit seiner Referenz: der einzigen anderen Segmentierung desselben Bilddatensatzes, sonst der einzigen, die wie er heißt. Um eine andere Referenz zu wählen, klicken Sie auf eine Zeile.</translation>
    </message>
    <message>
        <source>Comparing {name}</source>
        <translation>{name} wird verglichen</translation>
    </message>
    <message>
        <source>Comparison of cases</source>
        <translation>Vergleich der Fälle</translation>
    </message>
    <message>
        <source>Dice</source>
        <translation>Dice</translation>
    </message>
    <message>
        <source>Difference</source>
        <translation>Differenz</translation>
    </message>
    <message>
        <source>Mean Dice {dice} over {structures} structures of {cases} cases.</source>
        <translation>Mittlerer Dice {dice} über {structures} Strukturen von {cases} Fällen.</translation>
    </message>
    <message>
        <source>No structure is in both.</source>
        <translation>Keine Struktur ist in beiden.</translation>
    </message>
    <message>
        <source>Other mL</source>
        <translation>mL andere</translation>
    </message>
    <message>
        <source>Put the rows of all cases into a table of the scene.</source>
        <translation>Die Zeilen aller Fälle in eine Tabelle der Szene schreiben.</translation>
    </message>
    <message>
        <source>SD</source>
        <translation>SD</translation>
    </message>
    <message>
        <source>Save comparison</source>
        <translation>Vergleich speichern</translation>
    </message>
    <message>
        <source>Save the rows of all cases as a .csv file or as an Excel workbook.</source>
        <translation>Die Zeilen aller Fälle als .csv-Datei oder als Excel-Arbeitsmappe speichern.</translation>
    </message>
    <message>
        <source>Save...</source>
        <translation>Speichern...</translation>
    </message>
    <message>
        <source>Search structures and cases</source>
        <translation>Strukturen und Fälle suchen</translation>
    </message>
    <message>
        <source>Structure</source>
        <translation>Struktur</translation>
    </message>
    <message>
        <source>The comparison is in the file {name}.</source>
        <translation>Der Vergleich steht in der Datei {name}.</translation>
    </message>
    <message>
        <source>The comparison is in the table {name}.</source>
        <translation>Der Vergleich steht in der Tabelle {name}.</translation>
    </message>
    <message>
        <source>The comparison was not saved</source>
        <translation>Der Vergleich wurde nicht gespeichert</translation>
    </message>
    <message>
        <source>The segmentations have changed. Press Compare again.</source>
        <translation>Die Segmentierungen haben sich geändert. Drücken Sie noch einmal „Vergleichen“.</translation>
    </message>
    <message>
        <source>There are too many rows to list: save them to see those of single cases.</source>
        <translation>Es sind zu viele Zeilen für die Liste: Speichern Sie sie, um die der einzelnen Fälle zu sehen.</translation>
    </message>
    <message>
        <source>There is no result of a run whose volume is in the scene.</source>
        <translation>Es gibt kein Ergebnis eines Laufs, dessen Bilddatensatz in der Szene ist.</translation>
    </message>
    <message>
        <source>There is not enough memory to compare these segmentations.</source>
        <translation>Der Speicher reicht nicht, um diese Segmentierungen zu vergleichen.</translation>
    </message>
    <message>
        <source>To table</source>
        <translation>In Tabelle</translation>
    </message>
    <message>
        <source>comparison of cases</source>
        <translation>Vergleich der Fälle</translation>
    </message>
    <message>
        <source>mL</source>
        <translation>mL</translation>
    </message>
    <message>
        <source>mean of {count}</source>
        <translation>Mittel aus {count}</translation>
    </message>
    <message>
        <source>{name}: {reason}</source>
        <translation>{name}: {reason}</translation>
    </message>
</context>
<context>
    <name>results.case_list</name>
    <message>
        <source>Load an RT structure set as the reference of the row.</source>
        <translation>Einen RT-Strukturdatensatz als Referenz der Zeile laden.</translation>
    </message>
    <message>
        <source>None</source>
        <translation>Keiner</translation>
    </message>
    <message>
        <source>Reference</source>
        <translation>Referenz</translation>
    </message>
    <message>
        <source>Reference of the row</source>
        <translation>Referenz der Zeile</translation>
    </message>
    <message>
        <source>Reference of the row:</source>
        <translation>Referenz der Zeile:</translation>
    </message>
    <message>
        <source>Result</source>
        <translation>Ergebnis</translation>
    </message>
    <message>
        <source>Search cases</source>
        <translation>Fälle suchen</translation>
    </message>
    <message>
        <source>Structure set...</source>
        <translation>Strukturdatensatz...</translation>
    </message>
    <message>
        <source>Volume</source>
        <translation>Bilddatensatz</translation>
    </message>
    <message>
        <source>choose one</source>
        <translation>bitte wählen</translation>
    </message>
</context>
<context>
    <name>results.case_review</name>
    <message>
        <source>&amp;Images:</source>
        <translation>&amp;Bilder:</translation>
    </message>
    <message>
        <source>&amp;Reader:</source>
        <translation>&amp;Befunder:</translation>
    </message>
    <message>
        <source>&amp;Segmentations:</source>
        <translation>&amp;Segmentierungen:</translation>
    </message>
    <message>
        <source>C&amp;onfidence:</source>
        <translation>&amp;Konfidenz:</translation>
    </message>
    <message>
        <source>Cancel</source>
        <translation>Abbrechen</translation>
    </message>
    <message>
        <source>Close</source>
        <translation>Schließen</translation>
    </message>
    <message>
        <source>Compare &amp;with:</source>
        <translation>Vergleichen &amp;mit:</translation>
    </message>
    <message>
        <source>Compare all</source>
        <translation>Alle vergleichen</translation>
    </message>
    <message>
        <source>Folder of images</source>
        <translation>Ordner mit Bildern</translation>
    </message>
    <message>
        <source>Folder of other segmentations</source>
        <translation>Ordner anderer Segmentierungen</translation>
    </message>
    <message>
        <source>Folder of segmentations</source>
        <translation>Ordner mit Segmentierungen</translation>
    </message>
    <message>
        <source>Folder of the confidence of each voxel</source>
        <translation>Ordner mit der Konfidenz jedes Voxels</translation>
    </message>
    <message>
        <source>Goes through the segmentations of a folder. The open case is listed under Result: check and correct it there, then save it and go on.</source>
        <translation>Geht die Segmentierungen eines Ordners durch. Der geöffnete Fall ist unter Ergebnis aufgeführt: Prüfen und korrigieren Sie ihn dort, speichern Sie ihn, und gehen Sie weiter.</translation>
    </message>
    <message>
        <source>In the table below {name}, no case is left to be checked.</source>
        <translation>In der Tabelle unter {name} ist kein Fall mehr zu prüfen.</translation>
    </message>
    <message>
        <source>None</source>
        <translation>Keiner</translation>
    </message>
    <message>
        <source>Open</source>
        <translation>Öffnen</translation>
    </message>
    <message>
        <source>Open it nevertheless?</source>
        <translation>Trotzdem öffnen?</translation>
    </message>
    <message>
        <source>Review cases</source>
        <translation>Fälle prüfen</translation>
    </message>
    <message>
        <source>Save</source>
        <translation>Speichern</translation>
    </message>
    <message>
        <source>Save and next</source>
        <translation>Speichern und nächster</translation>
    </message>
    <message>
        <source>Search cases</source>
        <translation>Fälle suchen</translation>
    </message>
    <message>
        <source>The case was not opened</source>
        <translation>Der Fall wurde nicht geöffnet</translation>
    </message>
    <message>
        <source>The segmentation was not saved</source>
        <translation>Die Segmentierung wurde nicht gespeichert</translation>
    </message>
    <message>
        <source>There is not enough memory to load the case.</source>
        <translation>Der Speicher reicht nicht, um den Fall zu laden.</translation>
    </message>
    <message>
        <source>There is not enough memory to save the segmentation.</source>
        <translation>Der Speicher reicht nicht, um die Segmentierung zu speichern.</translation>
    </message>
    <message>
        <source>To open a case, click it in the table.</source>
        <translation>Um einen Fall zu öffnen, klicken Sie ihn in der Tabelle an.</translation>
    </message>
    <message>
        <source>Your name, if others may read it</source>
        <translation>Ihr Name, wenn andere ihn lesen dürfen</translation>
    </message>
    <message>
        <source>{file} was changed by somebody else since you opened it. Replace it?</source>
        <translation>{file} wurde von jemand anderem geändert, seit Sie die Datei geöffnet haben. Ersetzen?</translation>
    </message>
    <message>
        <source>{name} has not changed, so there is nothing to save.</source>
        <translation>{name} hat sich nicht geändert, es gibt nichts zu speichern.</translation>
    </message>
    <message>
        <source>{name} is open.</source>
        <translation>{name} ist geöffnet.</translation>
    </message>
    <message>
        <source>{name} is saved.</source>
        <translation>{name} ist gespeichert.</translation>
    </message>
    <message>
        <source>{name} was changed and not saved. Discard the changes?</source>
        <translation>{name} wurde geändert und nicht gespeichert. Die Änderungen verwerfen?</translation>
    </message>
</context>
<context>
    <name>results.compare_panel</name>
    <message>
        <source>A segmentation was removed, so its comparison is gone.</source>
        <translation>Eine Segmentierung wurde entfernt, und mit ihr der Vergleich.</translation>
    </message>
    <message>
        <source>Choose a segmentation to compare with the one under Result.</source>
        <translation>Wählen Sie eine Segmentierung, die mit der unter „Ergebnis“ verglichen wird.</translation>
    </message>
    <message>
        <source>Dice</source>
        <translation>Dice</translation>
    </message>
    <message>
        <source>Difference</source>
        <translation>Differenz</translation>
    </message>
    <message>
        <source>Other mL</source>
        <translation>mL andere</translation>
    </message>
    <message>
        <source>Save comparison</source>
        <translation>Vergleich speichern</translation>
    </message>
    <message>
        <source>Structure</source>
        <translation>Struktur</translation>
    </message>
    <message>
        <source>The comparison is in the file {name}.</source>
        <translation>Der Vergleich steht in der Datei {name}.</translation>
    </message>
    <message>
        <source>The comparison is in the table {name}.</source>
        <translation>Der Vergleich steht in der Tabelle {name}.</translation>
    </message>
    <message>
        <source>The comparison was not saved</source>
        <translation>Der Vergleich wurde nicht gespeichert</translation>
    </message>
    <message>
        <source>The differences are in the segmentation {name}: {both} mL in both, {alone} mL only in {first}, {other} mL only in {second}. Until you press Hide differences, both segmentations are hidden.</source>
        <translation>Die Unterschiede stehen in der Segmentierung {name}: {both} mL in beiden, {alone} mL nur in {first}, {other} mL nur in {second}. Bis Sie „Ausblenden“ drücken, sind beide Segmentierungen ausgeblendet.</translation>
    </message>
    <message>
        <source>The differences are not shown</source>
        <translation>Die Unterschiede werden nicht gezeigt</translation>
    </message>
    <message>
        <source>The segmentations have changed. Press Compare again.</source>
        <translation>Die Segmentierungen haben sich geändert. Drücken Sie noch einmal „Vergleichen“.</translation>
    </message>
    <message>
        <source>There is not enough memory to compare these segmentations.</source>
        <translation>Der Speicher reicht nicht, um diese Segmentierungen zu vergleichen.</translation>
    </message>
    <message>
        <source>There is not enough memory to show the differences.</source>
        <translation>Der Speicher reicht nicht, um die Unterschiede zu zeigen.</translation>
    </message>
    <message>
        <source>mL</source>
        <translation>mL</translation>
    </message>
    <message>
        <source>mean Dice {dice}</source>
        <translation>mittlerer Dice {dice}</translation>
    </message>
    <message>
        <source>{count} only in {name}</source>
        <translation>{count} nur in {name}</translation>
    </message>
    <message>
        <source>{count} structures in both</source>
        <translation>{count} Strukturen in beiden</translation>
    </message>
    <message>
        <source>{name} (other)</source>
        <translation>{name} (andere)</translation>
    </message>
    <message>
        <source>{name} (reference)</source>
        <translation>{name} (Referenz)</translation>
    </message>
    <message>
        <source>{name} is on another grid, and its nearest voxels were compared.</source>
        <translation>{name} hat ein anderes Gitter; verglichen wurden die nächstliegenden Voxel.</translation>
    </message>
</context>
<context>
    <name>results.correcting</name>
    <message>
        <source>Added: {names}.</source>
        <translation>Hinzugefügt: {names}.</translation>
    </message>
    <message>
        <source>Discard the correction</source>
        <translation>Korrektur verwerfen</translation>
    </message>
    <message>
        <source>Discard what you have painted? The structure stays as it was.</source>
        <translation>Verwerfen, was Sie gezeichnet haben? Die Struktur bleibt, wie sie war.</translation>
    </message>
    <message>
        <source>Other structures have changed meanwhile, and keep what they have now.</source>
        <translation>Andere Strukturen haben sich inzwischen geändert und behalten, was sie jetzt haben.</translation>
    </message>
    <message>
        <source>The correction was not taken over</source>
        <translation>Die Korrektur wurde nicht übernommen</translation>
    </message>
    <message>
        <source>The statistics in the table {name} are from before the correction.</source>
        <translation>Die Statistik in der Tabelle {name} ist die von vor der Korrektur.</translation>
    </message>
    <message>
        <source>There is not enough memory to correct the structure.</source>
        <translation>Der Speicher reicht nicht, um die Struktur zu korrigieren.</translation>
    </message>
    <message>
        <source>There is not enough memory to take the correction over.</source>
        <translation>Der Speicher reicht nicht, um die Korrektur zu übernehmen.</translation>
    </message>
    <message>
        <source>This Slicer has no module Segment Editor, so structures cannot be corrected here.</source>
        <translation>Dieses Slicer hat kein Modul Segment Editor, also können Strukturen hier nicht korrigiert werden.</translation>
    </message>
    <message>
        <source>Voxels were taken from {names}.</source>
        <translation>Voxel wurden diesen genommen: {names}.</translation>
    </message>
    <message>
        <source>You are correcting {structure} in {segmentation}.</source>
        <translation>Sie korrigieren {structure} in {segmentation}.</translation>
    </message>
    <message>
        <source>You are correcting {structure} of a segmentation that was removed. What you paint can be kept.</source>
        <translation>Sie korrigieren {structure} einer Segmentierung, die entfernt wurde. Was Sie malen, kann behalten werden.</translation>
    </message>
    <message>
        <source>{name} has not changed.</source>
        <translation>{name} ist unverändert.</translation>
    </message>
    <message>
        <source>{name} has the colour and the codes that you have chosen.</source>
        <translation>{name} hat die Farbe und die Codes, die Sie gewählt haben.</translation>
    </message>
    <message>
        <source>{name} is called {new} now.</source>
        <translation>{name} heißt jetzt {new}.</translation>
    </message>
    <message>
        <source>{name} is corrected: {after} mL, before {before} mL.</source>
        <translation>{name} ist korrigiert: {after} mL, vorher {before} mL.</translation>
    </message>
</context>
<context>
    <name>results.correction_bar</name>
    <message>
        <source>Discard</source>
        <translation>Verwerfen</translation>
    </message>
    <message>
        <source>Leave the structure as it was, and go back.</source>
        <translation>Die Struktur lassen, wie sie war, und zurückgehen.</translation>
    </message>
    <message>
        <source>Lock other structures</source>
        <translation>Andere Strukturen sperren</translation>
    </message>
    <message>
        <source>Painting stops at the borders of all other structures. If this is unticked, painting takes voxels away from them.</source>
        <translation>Zeichnen endet an den Grenzen aller anderen Strukturen. Ohne dieses Häkchen nimmt Zeichnen ihnen Voxel weg.</translation>
    </message>
    <message>
        <source>Take over and go back</source>
        <translation>Übernehmen und zurück</translation>
    </message>
    <message>
        <source>Take over, correct the next</source>
        <translation>Übernehmen, nächste korrigieren</translation>
    </message>
    <message>
        <source>The structure becomes what you have painted, and is marked as checked, also if you have changed nothing. Then correct the next one that is not checked, those of which the model was least sure first.</source>
        <translation>Die Struktur wird zu dem, was Sie gemalt haben, und wird als geprüft markiert, auch wenn Sie nichts geändert haben. Dann die nächste korrigieren, die nicht geprüft ist; zuerst die, bei der das Modell am unsichersten war.</translation>
    </message>
</context>
<context>
    <name>results.folder_comparing</name>
    <message>
        <source>Cancelled.</source>
        <translation>Abgebrochen.</translation>
    </message>
    <message>
        <source>Cases compared: {count}.</source>
        <translation>Verglichene Fälle: {count}.</translation>
    </message>
    <message>
        <source>Comparing {number} of {count}: {name}</source>
        <translation>Vergleich {number} von {count}: {name}</translation>
    </message>
    <message>
        <source>Comparing...</source>
        <translation>Wird verglichen...</translation>
    </message>
</context>
<context>
    <name>results.listed_cases</name>
    <message>
        <source>Agreement</source>
        <translation>Übereinstimmung</translation>
    </message>
    <message>
        <source>Case</source>
        <translation>Fall</translation>
    </message>
    <message>
        <source>Checked</source>
        <translation>Geprüft</translation>
    </message>
    <message>
        <source>Choose both folders. A folder of cases for training has both.</source>
        <translation>Wählen Sie beide Ordner. Ein Ordner mit Fällen fürs Training hat beide.</translation>
    </message>
    <message>
        <source>Confidence</source>
        <translation>Konfidenz</translation>
    </message>
    <message>
        <source>Reader</source>
        <translation>Befunder</translation>
    </message>
    <message>
        <source>{name} is open on the computer {machine}, since {since}.</source>
        <translation>{name} ist seit {since} auf dem Rechner {machine} geöffnet.</translation>
    </message>
    <message>
        <source>{reader} (open)</source>
        <translation>{reader} (geöffnet)</translation>
    </message>
    <message>
        <source>{reader} has {name} open on the computer {machine}, since {since}.</source>
        <translation>{reader} hat {name} seit {since} auf dem Rechner {machine} geöffnet.</translation>
    </message>
</context>
<context>
    <name>results.result_panel</name>
    <message>
        <source>Confidence</source>
        <translation>Konfidenz</translation>
    </message>
    <message>
        <source>Correct</source>
        <translation>Korrigieren</translation>
    </message>
    <message>
        <source>DICOM segmentation</source>
        <translation>DICOM-Segmentierung</translation>
    </message>
    <message>
        <source>List {name} again, which was here before, and compare it with this one.</source>
        <translation>Wieder {name} auflisten, das vorher hier stand, und mit dieser Segmentierung vergleichen.</translation>
    </message>
    <message>
        <source>No structures to show.</source>
        <translation>Keine Strukturen vorhanden.</translation>
    </message>
    <message>
        <source>RT structure set</source>
        <translation>RT-Strukturdatensatz</translation>
    </message>
    <message>
        <source>Save segmentation</source>
        <translation>Segmentierung speichern</translation>
    </message>
    <message>
        <source>Segmentation</source>
        <translation>Segmentierung</translation>
    </message>
    <message>
        <source>Send to an archive...</source>
        <translation>An ein Archiv senden...</translation>
    </message>
    <message>
        <source>Show 3D</source>
        <translation>3D zeigen</translation>
    </message>
    <message>
        <source>Structure</source>
        <translation>Struktur</translation>
    </message>
    <message>
        <source>The segmentation was not saved</source>
        <translation>Die Segmentierung wurde nicht gespeichert</translation>
    </message>
    <message>
        <source>The structure cannot be corrected</source>
        <translation>Die Struktur kann nicht korrigiert werden</translation>
    </message>
    <message>
        <source>There is not enough memory to list the structures.</source>
        <translation>Der Speicher reicht nicht, um die Strukturen aufzuführen.</translation>
    </message>
    <message>
        <source>There is not enough memory to save the segmentation.</source>
        <translation>Der Speicher reicht nicht, um die Segmentierung zu speichern.</translation>
    </message>
    <message>
        <source>To correct a structure, click it in the table below.</source>
        <translation>Um eine Struktur zu korrigieren, klicken Sie sie in der Tabelle unten an.</translation>
    </message>
    <message>
        <source>To show structures in 3D, tick them in the table below.</source>
        <translation>Um Strukturen in 3D zu zeigen, haken Sie sie in der Tabelle unten an.</translation>
    </message>
    <message>
        <source>mL</source>
        <translation>mL</translation>
    </message>
    <message>
        <source>{count} structures found. Click one to centre the views on it. Tick some to show them in 3D.</source>
        <translation>{count} Strukturen gefunden. Ein Klick zentriert die Ansichten auf eine. Haken Sie welche an, um sie in 3D zu zeigen.</translation>
    </message>
</context>
<context>
    <name>results.review</name>
    <message>
        <source>All structures are checked.</source>
        <translation>Alle Strukturen sind geprüft.</translation>
    </message>
    <message>
        <source>All structures that the search shows are checked.</source>
        <translation>Alle Strukturen, die die Suche zeigt, sind geprüft.</translation>
    </message>
    <message>
        <source>Checked</source>
        <translation>Geprüft</translation>
    </message>
    <message>
        <source>To mark a structure as checked, click it in the table below.</source>
        <translation>Um eine Struktur als geprüft zu markieren, klicken Sie sie unten in der Tabelle an.</translation>
    </message>
    <message>
        <source>{name} is no longer marked as checked.</source>
        <translation>{name} ist nicht mehr als geprüft markiert.</translation>
    </message>
    <message>
        <source>{name}. Not yet checked: {count}.</source>
        <translation>{name}. Noch nicht geprüft: {count}.</translation>
    </message>
    <message>
        <source>{name}: confidence {sure}. Not yet checked: {count}.</source>
        <translation>{name}: Konfidenz {sure}. Noch nicht geprüft: {count}.</translation>
    </message>
</context>
<context>
    <name>results.section</name>
    <message>
        <source>Search structures</source>
        <translation>Strukturen suchen</translation>
    </message>
</context>
<context>
    <name>results.segment_colors</name>
    <message>
        <source>Confidence</source>
        <translation>Konfidenz</translation>
    </message>
    <message>
        <source>Structures</source>
        <translation>Strukturen</translation>
    </message>
    <message>
        <source>Unsure voxels</source>
        <translation>Unsichere Voxel</translation>
    </message>
</context>
<context>
    <name>results.statistics_menu</name>
    <message>
        <source>Intensities are those of {name}.</source>
        <translation>Die Intensitäten sind die von {name}.</translation>
    </message>
    <message>
        <source>Save statistics</source>
        <translation>Statistik speichern</translation>
    </message>
    <message>
        <source>Save...</source>
        <translation>Speichern...</translation>
    </message>
    <message>
        <source>The statistics are in the file {name}.</source>
        <translation>Die Statistik steht in der Datei {name}.</translation>
    </message>
    <message>
        <source>The statistics are in the table {name}.</source>
        <translation>Die Statistik steht in der Tabelle {name}.</translation>
    </message>
    <message>
        <source>The statistics were not saved</source>
        <translation>Die Statistik wurde nicht gespeichert</translation>
    </message>
    <message>
        <source>There is not enough memory for the statistics.</source>
        <translation>Der Speicher reicht nicht für die Statistik.</translation>
    </message>
    <message>
        <source>To table</source>
        <translation>In Tabelle</translation>
    </message>
</context>
<context>
    <name>results.structure_set</name>
    <message>
        <source>All files</source>
        <translation>Alle Dateien</translation>
    </message>
    <message>
        <source>Choose an RT structure set</source>
        <translation>RT-Strukturdatensatz wählen</translation>
    </message>
    <message>
        <source>RT structure set</source>
        <translation>RT-Strukturdatensatz</translation>
    </message>
    <message>
        <source>The structure set was not loaded</source>
        <translation>Der Strukturdatensatz wurde nicht geladen</translation>
    </message>
    <message>
        <source>There is not enough memory to load the structure set.</source>
        <translation>Der Speicher reicht nicht, um den Strukturdatensatz zu laden.</translation>
    </message>
</context>
<context>
    <name>results.table_file</name>
    <message>
        <source>Excel workbook</source>
        <translation>Excel-Arbeitsmappe</translation>
    </message>
    <message>
        <source>Table</source>
        <translation>Tabelle</translation>
    </message>
</context>
<context>
    <name>results.training</name>
    <message>
        <source>It is not known from which volume {name} was made. Save it with {volumes}, selected under Inputs?</source>
        <translation>Es ist nicht bekannt, aus welchem Bilddatensatz {name} entstanden ist. Mit {volumes} speichern, wie unter „Eingaben“ gewählt?</translation>
    </message>
    <message>
        <source>It is not known from which volume {name} was made. Select the volume under Inputs; it must have the grid of the segmentation.</source>
        <translation>Es ist nicht bekannt, aus welchem Bilddatensatz {name} entstanden ist. Wählen Sie ihn unter „Eingaben“; er muss das Gitter der Segmentierung haben.</translation>
    </message>
    <message>
        <source>Nobody has corrected or checked it since {models} found it.</source>
        <translation>Niemand hat es korrigiert oder geprüft, seit {models} es gefunden hat.</translation>
    </message>
    <message>
        <source>Save for training</source>
        <translation>Für Training speichern</translation>
    </message>
    <message>
        <source>Save this volume as the new case {name}?</source>
        <translation>Diesen Bilddatensatz als neuen Fall {name} speichern?</translation>
    </message>
    <message>
        <source>The case was not saved</source>
        <translation>Der Fall wurde nicht gespeichert</translation>
    </message>
    <message>
        <source>There is not enough memory to save the segmentation.</source>
        <translation>Der Speicher reicht nicht, um die Segmentierung zu speichern.</translation>
    </message>
    <message>
        <source>This volume is the case {name} there. Replace its image and its segmentation?</source>
        <translation>Dieser Bilddatensatz ist dort der Fall {name}. Sein Bild und seine Segmentierung ersetzen?</translation>
    </message>
    <message>
        <source>To train a model further on the cases, press Train...</source>
        <translation>Um ein Modell mit den Fällen weiter zu trainieren, drücken Sie Trainieren...</translation>
    </message>
    <message>
        <source>{folder} has these cases: {cases}.</source>
        <translation>{folder} enthält diese Fälle: {cases}.</translation>
    </message>
    <message>
        <source>{folder} has {count} cases, the latest of which are {cases}.</source>
        <translation>{folder} enthält {count} Fälle, die neuesten sind {cases}.</translation>
    </message>
    <message>
        <source>{name} ({when}, corrected: {names})</source>
        <translation>{name} ({when}, korrigiert: {names})</translation>
    </message>
    <message>
        <source>{name} is saved. Cases in the folder: {count}.</source>
        <translation>{name} ist gespeichert. Fälle im Ordner: {count}.</translation>
    </message>
</context>
<context>
    <name>runs.apply_line</name>
    <message>
        <source>A region is of one volume. Select none to segment several volumes, or untick these.</source>
        <translation>Eine Region gehört zu einem Bilddatensatz. Wählen Sie keine aus, um mehrere zu segmentieren, oder wählen Sie diese ab.</translation>
    </message>
    <message>
        <source>No class is ticked. Tick at least one class.</source>
        <translation>Keine Klasse ist angehakt. Haken Sie mindestens eine Klasse an.</translation>
    </message>
    <message>
        <source>No class of {model} is ticked, so this model does not run.</source>
        <translation>Von {model} ist keine Klasse angehakt, daher läuft dieses Modell nicht.</translation>
    </message>
    <message>
        <source>No model is selected. Select one, or add your own.</source>
        <translation>Kein Modell ist ausgewählt. Wählen Sie eines aus oder fügen Sie ein eigenes hinzu.</translation>
    </message>
    <message>
        <source>One volume is selected for several channels.</source>
        <translation>Ein Bilddatensatz ist für mehrere Kanäle ausgewählt.</translation>
    </message>
    <message>
        <source>Select the volume of the channel {channel}.</source>
        <translation>Wählen Sie den Bilddatensatz des Kanals {channel} aus.</translation>
    </message>
    <message>
        <source>The confidence is of one class in each voxel. Select no confidence volume, or do not keep overlaps.</source>
        <translation>Die Konfidenz gilt einer Klasse je Voxel. Wählen Sie keine Konfidenz aus oder behalten Sie Überlappungen nicht.</translation>
    </message>
    <message>
        <source>The model needs {count} volumes, and {name} is one. Untick it, and add the folder with all of them.</source>
        <translation>Das Modell braucht {count} Bilddatensätze, und {name} ist nur einer. Wählen Sie ihn ab und fügen Sie den Ordner mit allen hinzu.</translation>
    </message>
    <message>
        <source>The scene uses the model {model}, which is not in the catalogue. Select another model, or add this one.</source>
        <translation>Die Szene verwendet das Modell {model}, das nicht im Katalog ist. Wählen Sie ein anderes Modell oder fügen Sie dieses hinzu.</translation>
    </message>
    <message>
        <source>This model needs {count} volumes, and the panel has rows for {rows}. Use the Python console.</source>
        <translation>Dieses Modell braucht {count} Bilddatensätze, hier ist nur Platz für {rows}. Verwenden Sie die Python-Konsole.</translation>
    </message>
    <message>
        <source>This run will take {need}.</source>
        <translation>Dieser Lauf braucht {need}.</translation>
    </message>
    <message>
        <source>{count} cases are segmented one after the other ({names}). Their volumes are found by their names.</source>
        <translation>{count} Fälle werden nacheinander segmentiert ({names}). Ihre Bilddatensätze werden anhand der Namen gefunden.</translation>
    </message>
    <message>
        <source>{count} volumes are segmented one after the other ({names}). Each result gets a segmentation of its own.</source>
        <translation>{count} Bilddatensätze werden nacheinander segmentiert ({names}). Jedes Ergebnis bekommt eine eigene Segmentierung.</translation>
    </message>
    <message>
        <source>{first} and {second} need the channel {channel} at different places. Remove one of these models.</source>
        <translation>{first} und {second} brauchen den Kanal {channel} an verschiedenen Stellen. Entfernen Sie eines dieser Modelle.</translation>
    </message>
    <message>
        <source>{name} has several volumes, and the model needs one. Untick it, and add the volumes themselves.</source>
        <translation>{name} hat mehrere Bilddatensätze, und das Modell braucht einen. Wählen Sie den Eintrag ab und fügen Sie die Bilddatensätze selbst hinzu.</translation>
    </message>
    <message>
        <source>{name} is in the list twice. Remove it once.</source>
        <translation>{name} steht zweimal in der Liste. Entfernen Sie es einmal.</translation>
    </message>
    <message>
        <source>{name} is not downloaded. Press "Download...".</source>
        <translation>{name} ist nicht heruntergeladen. Drücken Sie „Laden...“.</translation>
    </message>
    <message>
        <source>{name} is segmented, as ticked in the list of volumes. The result gets a segmentation of its own.</source>
        <translation>{name} wird segmentiert, wie in der Liste angehakt. Das Ergebnis bekommt eine eigene Segmentierung.</translation>
    </message>
    <message>
        <source>{second} needs {count} volumes, and {first} needs {channels}. Remove one of these models.</source>
        <translation>{second} braucht {count} Bilddatensätze, {first} aber {channels}. Entfernen Sie eines dieser Modelle.</translation>
    </message>
</context>
<context>
    <name>runs.device_list</name>
    <message>
        <source>Automatic</source>
        <translation>Automatisch</translation>
    </message>
    <message>
        <source>CPU</source>
        <translation>CPU</translation>
    </message>
    <message>
        <source>Server: {name}</source>
        <translation>Server: {name}</translation>
    </message>
    <message>
        <source>{device} ({name})</source>
        <translation>{device} ({name})</translation>
    </message>
</context>
<context>
    <name>runs.last_choice</name>
    <message>
        <source>Classes</source>
        <translation>Klassen</translation>
    </message>
    <message>
        <source>Device</source>
        <translation>Gerät</translation>
    </message>
    <message>
        <source>Folds</source>
        <translation>Folds</translation>
    </message>
    <message>
        <source>Interpolation</source>
        <translation>Interpolation</translation>
    </message>
    <message>
        <source>Keep empty segments</source>
        <translation>Leere Segmente zulassen</translation>
    </message>
    <message>
        <source>Last choice</source>
        <translation>Letzte Wahl</translation>
    </message>
    <message>
        <source>Locate with</source>
        <translation>Finden mit</translation>
    </message>
    <message>
        <source>Memory limit</source>
        <translation>Speichergrenze</translation>
    </message>
    <message>
        <source>Mirroring</source>
        <translation>Spiegelung</translation>
    </message>
    <message>
        <source>No other choice was used with this model.</source>
        <translation>Mit diesem Modell wurde keine andere Wahl verwendet.</translation>
    </message>
    <message>
        <source>Overlap</source>
        <translation>Überlappung</translation>
    </message>
    <message>
        <source>Remove islands</source>
        <translation>Inseln entfernen</translation>
    </message>
    <message>
        <source>Report</source>
        <translation>Bericht</translation>
    </message>
    <message>
        <source>Smooth</source>
        <translation>Glätten</translation>
    </message>
    <message>
        <source>Standard anatomical names</source>
        <translation>Anatomische Standardnamen</translation>
    </message>
    <message>
        <source>Step</source>
        <translation>Schritt</translation>
    </message>
    <message>
        <source>This model no longer has {count} of the classes that were chosen.</source>
        <translation>{count} der gewählten Klassen hat dieses Modell nicht mehr.</translation>
    </message>
    <message>
        <source>This model no longer has {count} of the classes that were chosen. They were left out.</source>
        <translation>{count} der gewählten Klassen hat dieses Modell nicht mehr. Sie wurden weggelassen.</translation>
    </message>
    <message>
        <source>Threads</source>
        <translation>Threads</translation>
    </message>
    <message>
        <source>Use last choice</source>
        <translation>Letzte Wahl verwenden</translation>
    </message>
    <message>
        <source>all</source>
        <translation>alle</translation>
    </message>
    <message>
        <source>between all classes</source>
        <translation>zwischen allen Klassen</translation>
    </message>
    <message>
        <source>bfloat16 on the CPU</source>
        <translation>bfloat16 auf der CPU</translation>
    </message>
    <message>
        <source>keep both</source>
        <translation>beide behalten</translation>
    </message>
    <message>
        <source>nearest class</source>
        <translation>nächstliegende Klasse</translation>
    </message>
    <message>
        <source>no</source>
        <translation>nein</translation>
    </message>
    <message>
        <source>none</source>
        <translation>keiner</translation>
    </message>
    <message>
        <source>the later model gets the voxel</source>
        <translation>das spätere Modell gilt</translation>
    </message>
    <message>
        <source>usual</source>
        <translation>üblich</translation>
    </message>
    <message>
        <source>yes</source>
        <translation>ja</translation>
    </message>
    <message>
        <source>{title}: {value}</source>
        <translation>{title}: {value}</translation>
    </message>
</context>
<context>
    <name>runs.progress</name>
    <message>
        <source>(frame {index} of {count})</source>
        <translation>(Bild {index} von {count})</translation>
    </message>
    <message>
        <source>(part {part} of {parts})</source>
        <translation>(Teil {part} von {parts})</translation>
    </message>
    <message>
        <source>(volume {index} of {count})</source>
        <translation>(Bilddatensatz {index} von {count})</translation>
    </message>
    <message>
        <source>Assigning the classes</source>
        <translation>Klassen werden zugeordnet</translation>
    </message>
    <message>
        <source>Cleaning up</source>
        <translation>Nachbearbeitung</translation>
    </message>
    <message>
        <source>Fetching the result</source>
        <translation>Das Ergebnis wird geholt</translation>
    </message>
    <message>
        <source>Loading the model</source>
        <translation>Modell wird geladen</translation>
    </message>
    <message>
        <source>Locating</source>
        <translation>Lage wird gesucht</translation>
    </message>
    <message>
        <source>Preparing the image</source>
        <translation>Bild wird vorbereitet</translation>
    </message>
    <message>
        <source>Reading the image</source>
        <translation>Bild wird gelesen</translation>
    </message>
    <message>
        <source>Segmenting</source>
        <translation>Segmentierung läuft</translation>
    </message>
    <message>
        <source>Sending the image</source>
        <translation>Das Bild wird gesendet</translation>
    </message>
    <message>
        <source>Starting</source>
        <translation>Start läuft</translation>
    </message>
    <message>
        <source>Waiting for the server</source>
        <translation>Warten auf den Server</translation>
    </message>
    <message>
        <source>Waiting: one job is before this one</source>
        <translation>Warten: ein Auftrag ist vor diesem</translation>
    </message>
    <message>
        <source>Waiting: {count} jobs are before this one</source>
        <translation>Warten: {count} Aufträge sind vor diesem</translation>
    </message>
    <message>
        <source>Writing the result</source>
        <translation>Ergebnis wird geschrieben</translation>
    </message>
</context>
<context>
    <name>runs.queue_panel</name>
    <message>
        <source>Add</source>
        <translation>Hinzufügen</translation>
    </message>
    <message>
        <source>Add volumes</source>
        <translation>Bilddatensätze hinzufügen</translation>
    </message>
    <message>
        <source>Add volumes of the scene, from the DICOM database, of a folder of files, or from an archive.</source>
        <translation>Bilddatensätze der Szene, aus der DICOM-Datenbank, aus einem Ordner mit Dateien oder aus einem Archiv hinzufügen.</translation>
    </message>
    <message>
        <source>All folders, patients and studies of the scene</source>
        <translation>Alle Ordner, Patienten und Studien der Szene</translation>
    </message>
    <message>
        <source>All volumes of the scene</source>
        <translation>Alle Bilddatensätze der Szene</translation>
    </message>
    <message>
        <source>Empty this list. The volumes stay.</source>
        <translation>Diese Liste leeren. Die Bilddatensätze bleiben erhalten.</translation>
    </message>
    <message>
        <source>Folder of images...</source>
        <translation>Ordner mit Bildern...</translation>
    </message>
    <message>
        <source>Folder, patient or study of the scene</source>
        <translation>Ordner, Patient oder Studie der Szene</translation>
    </message>
    <message>
        <source>From an archive...</source>
        <translation>Aus einem Archiv...</translation>
    </message>
    <message>
        <source>Remove all</source>
        <translation>Alle entfernen</translation>
    </message>
    <message>
        <source>Search volumes</source>
        <translation>Bilddatensätze suchen</translation>
    </message>
    <message>
        <source>Series of the DICOM database...</source>
        <translation>Serien der DICOM-Datenbank...</translation>
    </message>
    <message>
        <source>State</source>
        <translation>Stand</translation>
    </message>
    <message>
        <source>Volume</source>
        <translation>Bilddatensatz</translation>
    </message>
    <message>
        <source>Watch an archive...</source>
        <translation>Ein Archiv beobachten...</translation>
    </message>
    <message>
        <source>cancelled</source>
        <translation>abgebrochen</translation>
    </message>
    <message>
        <source>failed: {reason}</source>
        <translation>fehlgeschlagen: {reason}</translation>
    </message>
    <message>
        <source>running</source>
        <translation>läuft</translation>
    </message>
    <message>
        <source>waiting</source>
        <translation>wartet</translation>
    </message>
    <message>
        <source>{count} structures</source>
        <translation>{count} Strukturen</translation>
    </message>
    <message>
        <source>{folder} ({count})</source>
        <translation>{folder} ({count})</translation>
    </message>
</context>
<context>
    <name>runs.report_folder</name>
    <message>
        <source>A report is written into {folder}.</source>
        <translation>Ein Bericht wird in {folder} geschrieben.</translation>
    </message>
    <message>
        <source>Folder of the report</source>
        <translation>Ordner des Berichts</translation>
    </message>
    <message>
        <source>No web browser could be started. Open {file} yourself.</source>
        <translation>Es ließ sich kein Webbrowser starten. Öffnen Sie {file} selbst.</translation>
    </message>
    <message>
        <source>Report</source>
        <translation>Bericht</translation>
    </message>
    <message>
        <source>The folder of the report needs its whole path, such as {example}.</source>
        <translation>Der Ordner des Berichts braucht seinen ganzen Pfad, etwa {example}.</translation>
    </message>
    <message>
        <source>The scene names {folder} as the folder of a report, which has pictures of the volume. Write the report there?</source>
        <translation>Die Szene nennt {folder} als Ordner eines Berichts, der Bilder des Datensatzes enthält. Den Bericht dort schreiben?</translation>
    </message>
    <message>
        <source>{file} is not there any more.</source>
        <translation>{file} gibt es nicht mehr.</translation>
    </message>
</context>
<context>
    <name>runs.request</name>
    <message>
        <source>An archive is watched with a device of this computer. Choose another device than a server.</source>
        <translation>Ein Archiv wird mit einem Gerät dieses Computers beobachtet. Wählen Sie ein anderes Gerät als einen Server.</translation>
    </message>
    <message>
        <source>Choose a model that is on this computer. Download it first if it is not.</source>
        <translation>Wählen Sie ein Modell, und laden Sie es zuerst auf diesen Computer herunter.</translation>
    </message>
    <message>
        <source>Results for an archive have one class in each voxel. Do not keep overlaps.</source>
        <translation>Ergebnisse für ein Archiv haben in jedem Voxel eine Klasse. Behalten Sie Überlappungen nicht.</translation>
    </message>
    <message>
        <source>The model needs several volumes at once, and a series is one. Choose another model.</source>
        <translation>Das Modell braucht mehrere Volumen zugleich, und eine Serie ist eines. Wählen Sie ein anderes Modell.</translation>
    </message>
</context>
<context>
    <name>runs.run_panel</name>
    <message>
        <source>Cancelled. The scene was not changed.</source>
        <translation>Abgebrochen. Die Szene wurde nicht verändert.</translation>
    </message>
    <message>
        <source>Cancelled. Volumes that were finished before keep their results.</source>
        <translation>Abgebrochen. Bilddatensätze, die vorher fertig waren, behalten ihre Ergebnisse.</translation>
    </message>
    <message>
        <source>ClassScaleSeg</source>
        <translation>ClassScaleSeg</translation>
    </message>
    <message>
        <source>Done: {count} of {all} volumes segmented.</source>
        <translation>Fertig: {count} von {all} Bilddatensätzen segmentiert.</translation>
    </message>
    <message>
        <source>Done: {count} structures found.</source>
        <translation>Fertig: {count} Strukturen gefunden.</translation>
    </message>
    <message>
        <source>Replace results</source>
        <translation>Ergebnisse ersetzen</translation>
    </message>
    <message>
        <source>The reasons of {count} others are in the list of volumes.</source>
        <translation>Die Gründe von {count} weiteren stehen in der Liste der Bilddatensätze.</translation>
    </message>
    <message>
        <source>The report is written.</source>
        <translation>Der Bericht ist geschrieben.</translation>
    </message>
    <message>
        <source>The run will replace the contents of {names}. Continue?</source>
        <translation>Der Lauf wird den Inhalt von {names} ersetzen. Fortfahren?</translation>
    </message>
    <message>
        <source>{volume}: {reason}</source>
        <translation>{volume}: {reason}</translation>
    </message>
</context>
<context>
    <name>servers.consent</name>
    <message>
        <source>Send the image?</source>
        <translation>Bild senden?</translation>
    </message>
    <message>
        <source>Send the token?</source>
        <translation>Das Token senden?</translation>
    </message>
</context>
<context>
    <name>servers.dialog</name>
    <message>
        <source>&amp;Address:</source>
        <translation>&amp;Adresse:</translation>
    </message>
    <message>
        <source>&amp;Name:</source>
        <translation>&amp;Name:</translation>
    </message>
    <message>
        <source>&amp;Token:</source>
        <translation>&amp;Token:</translation>
    </message>
    <message>
        <source>Add</source>
        <translation>Hinzufügen</translation>
    </message>
    <message>
        <source>Asking {server}...</source>
        <translation>{server} wird gefragt...</translation>
    </message>
    <message>
        <source>Certi&amp;ficate:</source>
        <translation>Zerti&amp;fikat:</translation>
    </message>
    <message>
        <source>Certificate file</source>
        <translation>Zertifikatsdatei</translation>
    </message>
    <message>
        <source>Choose the certificate file</source>
        <translation>Zertifikatsdatei wählen</translation>
    </message>
    <message>
        <source>Close</source>
        <translation>Schließen</translation>
    </message>
    <message>
        <source>Remove</source>
        <translation>Entfernen</translation>
    </message>
    <message>
        <source>Remove server</source>
        <translation>Server entfernen</translation>
    </message>
    <message>
        <source>Remove {name} from the list, and its token?</source>
        <translation>{name} und das zugehörige Token aus der Liste entfernen?</translation>
    </message>
    <message>
        <source>Select a server of the list.</source>
        <translation>Wählen Sie einen Server der Liste.</translation>
    </message>
    <message>
        <source>Servers</source>
        <translation>Server</translation>
    </message>
    <message>
        <source>Servers of ClassScaleSeg segment for computers without a GPU. Images are sent there.</source>
        <translation>Server von ClassScaleSeg segmentieren für Computer ohne GPU. Bilder werden dorthin gesendet.</translation>
    </message>
    <message>
        <source>Test</source>
        <translation>Prüfen</translation>
    </message>
    <message>
        <source>This server cannot be added</source>
        <translation>Dieser Server kann nicht hinzugefügt werden</translation>
    </message>
    <message>
        <source>as before</source>
        <translation>wie bisher</translation>
    </message>
    <message>
        <source>if the server asks for one</source>
        <translation>wenn der Server eines verlangt</translation>
    </message>
    <message>
        <source>if this computer does not trust it</source>
        <translation>wenn dieser Computer ihm nicht vertraut</translation>
    </message>
</context>
<context>
    <name>servers.texts</name>
    <message>
        <source>("Servers...")</source>
        <translation>(„Server...“)</translation>
    </message>
    <message>
        <source>Asking {server} for its models...</source>
        <translation>{server} wird nach seinen Modellen gefragt...</translation>
    </message>
    <message>
        <source>Devices</source>
        <translation>Geräte</translation>
    </message>
    <message>
        <source>Enter it in the list of servers ("Servers...").</source>
        <translation>Geben Sie es in der Liste der Server ein („Server...“).</translation>
    </message>
    <message>
        <source>It has nothing else to do.</source>
        <translation>Er hat nichts anderes zu tun.</translation>
    </message>
    <message>
        <source>Jobs</source>
        <translation>Aufträge</translation>
    </message>
    <message>
        <source>Models</source>
        <translation>Modelle</translation>
    </message>
    <message>
        <source>Names, dates and what else a patient's record says are not sent, but an image may show a face.</source>
        <translation>Namen, Daten und was sonst in der Akte steht, werden nicht gesendet; ein Bild kann aber ein Gesicht zeigen.</translation>
    </message>
    <message>
        <source>No job waits there, and {count} are running.</source>
        <translation>Dort wartet kein Auftrag, und {count} laufen.</translation>
    </message>
    <message>
        <source>No model is selected. Select one that {server} offers.</source>
        <translation>Es ist kein Modell gewählt. Wählen Sie eines, das {server} anbietet.</translation>
    </message>
    <message>
        <source>One job waits there.</source>
        <translation>Dort wartet ein Auftrag.</translation>
    </message>
    <message>
        <source>Send images to this address, now and in future?</source>
        <translation>Bilder an diese Adresse senden, jetzt und in Zukunft?</translation>
    </message>
    <message>
        <source>Send the token to this address, now and in future?</source>
        <translation>Das Token an diese Adresse senden, jetzt und künftig?</translation>
    </message>
    <message>
        <source>The address is one of this computer. What answers there may be a tunnel to another computer.</source>
        <translation>Die Adresse ist eine dieses Computers. Was dort antwortet, kann ein Tunnel zu einem anderen Computer sein.</translation>
    </message>
    <message>
        <source>The connection is NOT encrypted: others in the network could read the image and the token.</source>
        <translation>Die Verbindung ist NICHT verschlüsselt: Andere im Netz könnten das Bild und das Token lesen.</translation>
    </message>
    <message>
        <source>The connection is NOT encrypted: others in the network could read the token, and use it.</source>
        <translation>Die Verbindung ist NICHT verschlüsselt: Andere im Netzwerk könnten das Token lesen und benutzen.</translation>
    </message>
    <message>
        <source>The connection is encrypted.</source>
        <translation>Die Verbindung ist verschlüsselt.</translation>
    </message>
    <message>
        <source>The server answers.</source>
        <translation>Der Server antwortet.</translation>
    </message>
    <message>
        <source>To ask {server} what it offers, its token is sent to:</source>
        <translation>Um {server} zu fragen, was er anbietet, wird sein Token gesendet an:</translation>
    </message>
    <message>
        <source>To segment it on {server}, the image leaves this program and is sent to:</source>
        <translation>Um auf {server} segmentiert zu werden, verlässt das Bild dieses Programm und wird gesendet an:</translation>
    </message>
    <message>
        <source>Version</source>
        <translation>Version</translation>
    </message>
    <message>
        <source>none</source>
        <translation>keiner</translation>
    </message>
    <message>
        <source>not stated</source>
        <translation>nicht angegeben</translation>
    </message>
    <message>
        <source>{count} jobs wait there.</source>
        <translation>Dort warten {count} Aufträge.</translation>
    </message>
    <message>
        <source>{fault} Press "Try again", or select another device.</source>
        <translation>{fault} Drücken Sie „Noch einmal versuchen“, oder wählen Sie ein anderes Gerät.</translation>
    </message>
    <message>
        <source>{fault} To send it all the same, press "Try again". Otherwise select another device.</source>
        <translation>{fault} Um es trotzdem zu senden, drücken Sie „Noch einmal versuchen“. Wählen Sie sonst ein anderes Gerät.</translation>
    </message>
    <message>
        <source>{running} running, {waiting} waiting</source>
        <translation>{running} laufen, {waiting} warten</translation>
    </message>
    <message>
        <source>{server} computes this run, on {devices}.</source>
        <translation>{server} rechnet diesen Lauf auf {devices}.</translation>
    </message>
    <message>
        <source>{server} computes this run.</source>
        <translation>{server} rechnet diesen Lauf.</translation>
    </message>
    <message>
        <source>{server} does not offer the model {model}. Select one that it offers, or another device.</source>
        <translation>{server} bietet das Modell {model} nicht an. Wählen Sie eines, das er anbietet, oder ein anderes Gerät.</translation>
    </message>
    <message>
        <source>{server} offers no model. Select another device.</source>
        <translation>{server} bietet kein Modell an. Wählen Sie ein anderes Gerät.</translation>
    </message>
    <message>
        <source>{title}: {value}</source>
        <translation>{title}: {value}</translation>
    </message>
</context>
<context>
    <name>servers.watch</name>
    <message>
        <source>The device is the server {name}, which is not in your list. Add it, or select another device.</source>
        <translation>Das Gerät ist der Server {name}, der nicht in Ihrer Liste ist. Fügen Sie ihn hinzu, oder wählen Sie ein anderes Gerät.</translation>
    </message>
</context>
<context>
    <name>training.cases_dialog</name>
    <message>
        <source>C&amp;ases:</source>
        <translation>&amp;Fälle:</translation>
    </message>
    <message>
        <source>Choose the folder</source>
        <translation>Ordner wählen</translation>
    </message>
    <message>
        <source>Folder with the cases</source>
        <translation>Ordner mit den Fällen</translation>
    </message>
    <message>
        <source>Log</source>
        <translation>Protokoll</translation>
    </message>
    <message>
        <source>Model catalogue</source>
        <translation>Modellkatalog</translation>
    </message>
    <message>
        <source>No case was saved there.</source>
        <translation>Dort wurde kein Fall gespeichert.</translation>
    </message>
    <message>
        <source>One case, {name}.</source>
        <translation>Ein Fall, {name}.</translation>
    </message>
    <message>
        <source>The log has the rest.</source>
        <translation>Der Rest steht im Protokoll.</translation>
    </message>
    <message>
        <source>{count} cases, the latest of which is {name}.</source>
        <translation>{count} Fälle, der neueste davon ist {name}.</translation>
    </message>
</context>
<context>
    <name>training.choices</name>
    <message>
        <source>Choose the file of the new model.</source>
        <translation>Wählen Sie die Datei des neuen Modells.</translation>
    </message>
    <message>
        <source>Choose the folder with the cases. Save for training... writes one.</source>
        <translation>Wählen Sie den Ordner mit den Fällen. Für Training speichern... legt ihn an.</translation>
    </message>
    <message>
        <source>Choose the model to begin with.</source>
        <translation>Wählen Sie das Modell, mit dem begonnen wird.</translation>
    </message>
    <message>
        <source>Choose two models to compare.</source>
        <translation>Wählen Sie zwei Modelle, die verglichen werden.</translation>
    </message>
    <message>
        <source>{path} does not say where it is. Give the whole path, or choose it.</source>
        <translation>{path} sagt nicht, wo es liegt. Geben Sie den ganzen Pfad an, oder wählen Sie ihn aus.</translation>
    </message>
</context>
<context>
    <name>training.comparison</name>
    <message>
        <source>Cases</source>
        <translation>Fälle</translation>
    </message>
    <message>
        <source>Change</source>
        <translation>Änderung</translation>
    </message>
    <message>
        <source>Its mean Dice on the one case that the training has not seen is {dice}.</source>
        <translation>Sein mittlerer Dice bei dem einen Fall, den das Training nicht gesehen hat, ist {dice}.</translation>
    </message>
    <message>
        <source>Its mean Dice on {count} cases that the training has not seen is {dice}.</source>
        <translation>Sein mittlerer Dice bei Fällen, die das Training nicht gesehen hat ({count}), ist {dice}.</translation>
    </message>
    <message>
        <source>On the one case that the training has not seen, the mean Dice has gone from {before} to {now}.</source>
        <translation>Bei dem einen Fall, den das Training nicht gesehen hat, hat sich der mittlere Dice von {before} auf {now} verändert.</translation>
    </message>
    <message>
        <source>On {count} cases that the training has not seen, the mean Dice has gone from {before} to {now}.</source>
        <translation>Bei {count} Fällen, die das Training nicht gesehen hat, hat sich der mittlere Dice von {before} auf {now} verändert.</translation>
    </message>
    <message>
        <source>Search structures</source>
        <translation>Strukturen suchen</translation>
    </message>
    <message>
        <source>Structure</source>
        <translation>Struktur</translation>
    </message>
    <message>
        <source>Structures that both models know: {better} better, {worse} worse.</source>
        <translation>Strukturen, die beide Modelle kennen: {better} besser, {worse} schlechter.</translation>
    </message>
</context>
<context>
    <name>training.dialog</name>
    <message>
        <source>&amp;Begin with:</source>
        <translation>&amp;Beginnen mit:</translation>
    </message>
    <message>
        <source>&amp;Device:</source>
        <translation>&amp;Gerät:</translation>
    </message>
    <message>
        <source>&amp;Epochs:</source>
        <translation>&amp;Epochen:</translation>
    </message>
    <message>
        <source>&amp;New model:</source>
        <translation>&amp;Neues Modell:</translation>
    </message>
    <message>
        <source>Adds a structure to a model: draw the new one alone, and the model fills in those that it knows. What is drawn stays. Empty the segment of what is not in the image: if you remove it, the model fills it in again.</source>
        <translation>Fügt einem Modell eine Struktur hinzu: Zeichnen Sie nur die neue, und das Modell ergänzt die, die es kennt. Was gezeichnet ist, bleibt. Ist eine Struktur nicht im Bild, leeren Sie ihr Segment: Wenn Sie es entfernen, ergänzt das Modell es wieder.</translation>
    </message>
    <message>
        <source>An epoch is 250 steps of one batch each. More epochs need more time.</source>
        <translation>Eine Epoche hat 250 Schritte mit je einem Batch. Mehr Epochen brauchen mehr Zeit.</translation>
    </message>
    <message>
        <source>Before</source>
        <translation>Vorher</translation>
    </message>
    <message>
        <source>Choose the file</source>
        <translation>Datei wählen</translation>
    </message>
    <message>
        <source>Done. The new model is {file}.</source>
        <translation>Fertig. Das neue Modell ist {file}.</translation>
    </message>
    <message>
        <source>Leave out results that nobody has corrected or checked</source>
        <translation>Ergebnisse weglassen, die niemand korrigiert oder geprüft hat</translation>
    </message>
    <message>
        <source>Let the model find what nobody has drawn</source>
        <translation>Das Modell finden lassen, was niemand gezeichnet hat</translation>
    </message>
    <message>
        <source>Model bundles</source>
        <translation>Modell-Bündel</translation>
    </message>
    <message>
        <source>Models on this computer that are one network of nnU-Net. Others, as of Auto3DSeg, cannot be trained.</source>
        <translation>Modelle auf diesem Rechner, die ein einziges Netz von nnU-Net sind. Andere, etwa von Auto3DSeg, lassen sich nicht weiter trainieren.</translation>
    </message>
    <message>
        <source>New model</source>
        <translation>Neues Modell</translation>
    </message>
    <message>
        <source>Now</source>
        <translation>Jetzt</translation>
    </message>
    <message>
        <source>Start</source>
        <translation>Start</translation>
    </message>
    <message>
        <source>Stop</source>
        <translation>Anhalten</translation>
    </message>
    <message>
        <source>Stopped. The new model is {file}. It was not compared.</source>
        <translation>Angehalten. Das neue Modell ist {file}. Es wurde nicht verglichen.</translation>
    </message>
    <message>
        <source>Stopped. What was learned is kept: press Start to go on.</source>
        <translation>Angehalten. Was gelernt wurde, bleibt: Drücken Sie Start, um fortzufahren.</translation>
    </message>
    <message>
        <source>Structures that &amp;overlap:</source>
        <translation>&amp;Überlappende Strukturen:</translation>
    </message>
    <message>
        <source>The training has failed</source>
        <translation>Das Training ist gescheitert</translation>
    </message>
    <message>
        <source>Train</source>
        <translation>Trainieren</translation>
    </message>
    <message>
        <source>Trains a model further on the cases that you have corrected and saved for training. It takes hours, and a GPU unless the network is small. You can stop it, and go on later.</source>
        <translation>Trainiert ein Modell mit den Fällen weiter, die Sie korrigiert und für das Training gespeichert haben. Das dauert Stunden und braucht eine GPU, außer wenn das Netz klein ist. Sie können es anhalten und später fortsetzen.</translation>
    </message>
    <message>
        <source>Use the new model</source>
        <translation>Das neue Modell benutzen</translation>
    </message>
    <message>
        <source>What a case &amp;lacks:</source>
        <translation>&amp;Was einem Fall fehlt:</translation>
    </message>
    <message>
        <source>{file} exists. Replace it once the training is done?</source>
        <translation>{file} existiert. Nach dem Training ersetzen?</translation>
    </message>
</context>
<context>
    <name>training.models_dialog</name>
    <message>
        <source>&amp;Device:</source>
        <translation>&amp;Gerät:</translation>
    </message>
    <message>
        <source>&amp;Model A:</source>
        <translation>&amp;Modell A:</translation>
    </message>
    <message>
        <source>Both models know structures that are drawn, but none of these together.</source>
        <translation>Beide Modelle kennen gezeichnete Strukturen, aber keine davon gemeinsam.</translation>
    </message>
    <message>
        <source>Cancel</source>
        <translation>Abbrechen</translation>
    </message>
    <message>
        <source>Cancelled. Begin the same comparison again within a week, and it goes on there.</source>
        <translation>Abgebrochen. Wenn Sie denselben Vergleich innerhalb einer Woche erneut beginnen, geht er dort weiter.</translation>
    </message>
    <message>
        <source>Compare</source>
        <translation>Vergleichen</translation>
    </message>
    <message>
        <source>Compare models</source>
        <translation>Modelle vergleichen</translation>
    </message>
    <message>
        <source>Model &amp;B:</source>
        <translation>Modell &amp;B:</translation>
    </message>
    <message>
        <source>Models on this computer. Both must take the same number of images of a case.</source>
        <translation>Modelle auf diesem Rechner. Beide müssen gleich viele Bilder eines Falls brauchen.</translation>
    </message>
    <message>
        <source>On one case, the mean Dice of {first} is {dice}, and that of {second} is {other}.</source>
        <translation>Bei einem Fall ist der mittlere Dice von {first} {dice} und der von {second} {other}.</translation>
    </message>
    <message>
        <source>On {cases} cases, the mean Dice of {first} is {dice}, and that of {second} is {other}.</source>
        <translation>Bei {cases} Fällen ist der mittlere Dice von {first} {dice} und der von {second} {other}.</translation>
    </message>
    <message>
        <source>One case could not be compared, and counts for no model: {fault}</source>
        <translation>Ein Fall ließ sich nicht vergleichen und zählt für kein Modell: {fault}</translation>
    </message>
    <message>
        <source>Save comparison</source>
        <translation>Vergleich speichern</translation>
    </message>
    <message>
        <source>Save the figures of all cases, structures and both models as a .csv file.</source>
        <translation>Die Zahlen aller Fälle, Strukturen und beider Modelle als .csv-Datei speichern.</translation>
    </message>
    <message>
        <source>Save...</source>
        <translation>Speichern...</translation>
    </message>
    <message>
        <source>Segmentation {number} of {total}</source>
        <translation>Segmentierung {number} von {total}</translation>
    </message>
    <message>
        <source>Segments the cases that you have corrected and saved for training with two models, and shows the Dice of each structure side by side. Cases that a model was trained on flatter it.</source>
        <translation>Segmentiert die Fälle, die Sie korrigiert und für das Training gespeichert haben, mit zwei Modellen und zeigt die Dice jeder Struktur nebeneinander. Fälle, mit denen ein Modell trainiert wurde, schmeicheln ihm.</translation>
    </message>
    <message>
        <source>Starting</source>
        <translation>Start läuft</translation>
    </message>
    <message>
        <source>Structures that both know: {better} better with B, {worse} worse.</source>
        <translation>Strukturen, die beide kennen: {better} mit B besser, {worse} schlechter.</translation>
    </message>
    <message>
        <source>Table</source>
        <translation>Tabelle</translation>
    </message>
    <message>
        <source>The comparison was not saved</source>
        <translation>Der Vergleich wurde nicht gespeichert</translation>
    </message>
    <message>
        <source>The models could not be compared</source>
        <translation>Die Modelle konnten nicht verglichen werden</translation>
    </message>
    <message>
        <source>The table {file} cannot be read ({reason}).</source>
        <translation>Die Tabelle {file} kann nicht gelesen werden ({reason}).</translation>
    </message>
    <message>
        <source>{count} cases could not be compared, and count for no model. The first fault was: {fault}</source>
        <translation>{count} Fälle ließen sich nicht vergleichen und zählen für kein Modell. Der erste Fehler war: {fault}</translation>
    </message>
    <message>
        <source>{first} and {second} have no class in common.</source>
        <translation>{first} und {second} haben keine Klasse gemeinsam.</translation>
    </message>
    <message>
        <source>{name} knows none of the structures that are drawn.</source>
        <translation>{name} kennt keine der gezeichneten Strukturen.</translation>
    </message>
</context>
<context>
    <name>training.progress</name>
    <message>
        <source>Comparing both models</source>
        <translation>Beide Modelle werden verglichen</translation>
    </message>
    <message>
        <source>Planning</source>
        <translation>Planung</translation>
    </message>
    <message>
        <source>Preparing the images</source>
        <translation>Die Bilder werden vorbereitet</translation>
    </message>
    <message>
        <source>Reading the cases</source>
        <translation>Die Fälle werden gelesen</translation>
    </message>
    <message>
        <source>Segmenting the cases</source>
        <translation>Segmentiert die Fälle</translation>
    </message>
    <message>
        <source>Segmenting the cases: {done} of {total}</source>
        <translation>Segmentiert die Fälle: {done} von {total}</translation>
    </message>
    <message>
        <source>Starting</source>
        <translation>Start läuft</translation>
    </message>
    <message>
        <source>Training: {done} of {total} epochs</source>
        <translation>Training: {done} von {total} Epochen</translation>
    </message>
    <message>
        <source>Writing the model</source>
        <translation>Das Modell wird geschrieben</translation>
    </message>
</context>
<context>
    <name>training.words</name>
    <message>
        <source>Apple GPU</source>
        <translation>Apple-GPU</translation>
    </message>
    <message>
        <source>Automatic</source>
        <translation>Automatisch</translation>
    </message>
    <message>
        <source>CPU</source>
        <translation>CPU</translation>
    </message>
    <message>
        <source>Choose a folder with a shorter path for the new model, or give the cases shorter names.</source>
        <translation>Wählen Sie für das neue Modell einen Ordner mit kürzerem Pfad, oder geben Sie den Fällen kürzere Namen.</translation>
    </message>
    <message>
        <source>Choose another model to begin with.</source>
        <translation>Wählen Sie ein anderes Modell, mit dem begonnen wird.</translation>
    </message>
    <message>
        <source>Compare</source>
        <translation>Vergleichen</translation>
    </message>
    <message>
        <source>Give the structures the names that a model has for them, and save the cases again, or choose other models.</source>
        <translation>Geben Sie den Strukturen die Namen, die sie in einem Modell haben, und speichern Sie die Fälle neu, oder wählen Sie andere Modelle.</translation>
    </message>
    <message>
        <source>It is not in the image</source>
        <translation>Sie ist nicht im Bild</translation>
    </message>
    <message>
        <source>It may be there: nobody has drawn it</source>
        <translation>Sie kann da sein: Niemand hat sie gezeichnet</translation>
    </message>
    <message>
        <source>Keep a fifth of the cases to see how good the new model is</source>
        <translation>Ein Fünftel der Fälle zurückhalten, um das neue Modell zu prüfen</translation>
    </message>
    <message>
        <source>Save for training... writes one.</source>
        <translation>Für Training speichern... legt einen an.</translation>
    </message>
    <message>
        <source>Start</source>
        <translation>Start</translation>
    </message>
    <message>
        <source>Stop, and say which case lacks what</source>
        <translation>Anhalten und sagen, welchem Fall was fehlt</translation>
    </message>
    <message>
        <source>Stop, and say which ones</source>
        <translation>Anhalten und sagen, welche</translation>
    </message>
    <message>
        <source>The first of the labels wins</source>
        <translation>Das erste der Labels gewinnt</translation>
    </message>
    <message>
        <source>The last of the labels wins</source>
        <translation>Das letzte der Labels gewinnt</translation>
    </message>
</context>
<context>
    <name>widgets.process_dialog</name>
    <message>
        <source>Cancelled.</source>
        <translation>Abgebrochen.</translation>
    </message>
    <message>
        <source>Close</source>
        <translation>Schließen</translation>
    </message>
    <message>
        <source>Progress</source>
        <translation>Fortschritt</translation>
    </message>
</context>
<context>
    <name>widgets.saving</name>
    <message>
        <source>{path} already exists. Replace it?</source>
        <translation>{path} existiert bereits. Ersetzen?</translation>
    </message>
</context>
<context>
    <name>widgets.texts</name>
    <message>
        <source>about {hours} h left</source>
        <translation>noch etwa {hours} h</translation>
    </message>
    <message>
        <source>about {minutes} min left</source>
        <translation>noch etwa {minutes} min</translation>
    </message>
    <message>
        <source>about {seconds} s left</source>
        <translation>noch etwa {seconds} s</translation>
    </message>
</context>
</TS>
